"""The table of ops that this package computes itself (the kernels), and their rounding.

**Rounding.**  A kernel gets float16 tensors as float32 and computes in float32; its result is then
rounded to float16, once per op.  No reading of a float16 program is more exact; an engine that
accumulates in float16 is less exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.mil.arrays import Array, Value

Kernel = Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """A kernel, and the name of the input whose dtype its results get; None: the first input."""

    kernel: Kernel
    like: str | None


KERNELS: dict[str, Entry] = {}


def kernel(*ops: str, like: str | None = None) -> Callable[[Kernel], Kernel]:
    """A decorator that registers a function as the kernel of some ops.

    The function gets the op's inputs by name: arrays as tensors, anything else unchanged.
    like: the name of the input whose dtype the results get; by default the first input.
    """

    def register(function: Kernel) -> Kernel:
        for op in ops:
            KERNELS[op] = Entry(function, like)
        return function

    return register


class Computed:
    """Runs one op of `KERNELS`.  constants: its inputs that are the same in every run."""

    def __init__(self, op_type: str, constants: Mapping[str, Value]) -> None:
        self.entry = KERNELS[op_type]
        self._constants = {name: to_kernel(value) for name, value in constants.items()}

    def __call__(self, args: Mapping[str, Value]) -> list[Array]:
        """The outputs of the op as NumPy arrays.  args: all its inputs, constants included."""
        like = args[self.entry.like] if self.entry.like else next(iter(args.values()))
        dtype = (like[0] if isinstance(like, list | tuple) else like).dtype
        given = {
            name: self._constants[name] if name in self._constants else to_kernel(value)
            for name, value in args.items()
        }
        result = self.entry.kernel(**given)
        results = result if isinstance(result, tuple) else (result,)
        return [_rounded(x, dtype) for x in results]


def to_kernel(value: Value) -> Value:
    """An argument as kernels take it: arrays become tensors, and float16 becomes float32.

    Lists are converted item by item; anything else is returned as it is.
    """
    if isinstance(value, list | tuple):
        return [to_kernel(v) for v in value]
    if not isinstance(value, np.ndarray):
        return value
    if not value.flags.writeable or any(stride < 0 for stride in value.strides):
        value = value.copy()
    tensor = torch.from_numpy(value)
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _rounded(x: Tensor, dtype: np.dtype[Any]) -> Array:
    """x in the dtype of the op; float16 overflows to infinity, as it does in an engine."""
    if dtype == np.float16:
        x = x.to(torch.float16)  # torch is faster: NumPy converts one element at a time
    return np.asarray(x.numpy()).astype(dtype, copy=False)
