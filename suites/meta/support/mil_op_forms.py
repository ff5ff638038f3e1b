"""How an op of the interpreter and its expected answer are written down.

Nothing here calls what is under test.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
RNG = np.random.default_rng(20)


def normal(*shape: int) -> Array:
    """Numbers that float16 holds too, so that weights are the same in either precision."""
    return RNG.standard_normal(shape).astype(np.float16).astype(np.float32)


def ints(*shape: int, below: int = 9) -> Array:
    return RNG.integers(0, below, shape).astype(np.int32)


def bools(*shape: int) -> Array:
    return RNG.random(shape) < 0.5


@dataclass
class Op:
    """An op on inputs and attributes; expect: its outputs in float64, from the inputs in order.

    terms: numbers that each result sums; halves: whether it is run in float16 too.
    """

    op: str
    inputs: dict[str, Any]
    expect: Callable[..., Any]
    attrs: dict[str, Any] = field(default_factory=dict)
    terms: int = 1

    def __str__(self) -> str:
        plain = {k: v for k, v in self.attrs.items() if not isinstance(v, np.ndarray)}
        return "-".join([self.op, *(f"{k}={v}" for k, v in plain.items())]).replace(" ", "")


def unary(op: str, function: Callable[[Array], Array], x: Array | None = None, **attrs: Any) -> Op:
    return Op(op, {"x": normal(3, 5) if x is None else x}, function, attrs)


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    scores = q @ k.swapaxes(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    return softmax(scores) @ v


def put(data: Array, at: tuple[Any, ...], new: Array, mode: str = "update") -> Array:
    """data with `new` at an index, by NumPy's own unbuffered ufuncs."""
    out = data.copy()
    if mode == "update":
        out[at] = new
    else:
        ufunc = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "max": np.maximum}
        (ufunc | {"min": np.minimum})[mode].at(out, at, new)
    return out


X, Y = normal(2, 3, 5), normal(3, 1)
AT = np.array([4, 0, 2], np.int32)
