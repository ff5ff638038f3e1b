"""What a MIL program declares for a variable, and whether a NumPy value is as declared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from coremltools import RangeDim
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from harness.mil.arrays import Array
from harness.mil.errors import DeclaredError


def declared_dtype(var: Any) -> np.dtype[Any]:
    """The NumPy dtype of a variable; for a state, that of its content."""
    dtype: np.dtype[Any] = np.dtype(types.nptype_from_builtin(var.dtype))
    return dtype


def declared_shape(var: Any) -> tuple[Any, ...]:
    """The shape of a variable, () for a scalar; a dynamic length is a symbol."""
    return tuple(n if is_symbolic(n) else int(n) for n in var.shape)


def declared_bytes(var: Any) -> int:
    """Bytes of a variable.  Raises ValueError naming it if its shape is dynamic."""
    shape = declared_shape(var)
    if any(is_symbolic(n) for n in shape):
        raise ValueError(f"{var.name} has the dynamic shape {shape}: its bytes are not known")
    return whole_bytes(math.prod(int(n) for n in shape) * item_bits(var))


def whole_bytes(bits: int) -> int:
    """Bytes that hold so many bits: three int4 take two."""
    return -(-bits // 8)


def item_bits(var: Any) -> int:
    """Bits of one element; 4 for int4, although NumPy stores it in more."""
    if types.is_sub_byte(var.dtype):
        return int(var.dtype.get_bitwidth())
    return declared_dtype(var).itemsize * 8


#: The least and the greatest value of a dynamic length; None: no upper bound.
Range = tuple[int, int | None]


def declared_ranges(function: Any) -> dict[Any, Range]:
    """The range of each symbol in the shapes of a function's inputs, as given to the conversion.

    Leaves out enumerated shapes.  It is empty for a program that was read from a file, whose ranges
    are in the model's description.
    """
    found: dict[Any, Range] = {}
    for given in getattr(function, "input_types", None) or ():
        for dim in getattr(given.shape, "shape", ()):
            if isinstance(dim, RangeDim):
                found[dim.symbol] = (
                    dim.lower_bound,
                    dim.upper_bound if dim.upper_bound > 0 else None,
                )
    return found


@dataclass(frozen=True)
class Declared:
    """What the program declares for one variable, looked up once.

    what: the variable, for messages.  static: whether the shape has no symbols.
    """

    what: str
    dtype: np.dtype[Any]
    shape: tuple[Any, ...]
    static: bool

    @classmethod
    def of(cls, var: Any) -> Declared:
        """The declaration of a variable; for a state, that of its content."""
        op, shape = var.op, declared_shape(var)
        what = f"input {var.name!r}" if op is None else f"{op.op_type} {var.name!r}"
        return cls(what, declared_dtype(var), shape, not any(map(is_symbolic, shape)))


class Symbols:
    """The lengths that the symbols in a program's shapes have in one run."""

    def __init__(self, ranges: Mapping[Any, Range] | None = None) -> None:
        self._bound: dict[Any, int] = {}
        self._ranges = ranges or {}

    def check(self, want: Declared, value: Array, came: str = "computed") -> None:
        """Raise DeclaredError naming the variable unless `value` has its dtype and shape.

        A symbol may be any length in its range, but the same length wherever it occurs.
        came: how the value came about, for messages.
        """
        if value.dtype != want.dtype:
            raise DeclaredError(f"{want.what} declares {want.dtype}, {came} {value.dtype}")
        got = value.shape
        if got == want.shape:
            return
        same_rank = len(got) == len(want.shape)
        if want.static or not same_rank or not all(map(self._fits, want.shape, got)):
            where = "" if want.static else self._told(want.shape)
            raise DeclaredError(f"{want.what} declares shape {want.shape}{where}, {came} {got}")

    def _fits(self, want: Any, got: int) -> bool:
        if not is_symbolic(want):
            return int(want) == got
        if want.is_Symbol:
            least, most = self._ranges.get(want, (0, None))
            if got < least or (most is not None and got > most):
                return False
            return self._bound.setdefault(want, got) == got
        length = want.subs(self._bound)
        return bool(length == got) if length.is_number else True

    def _told(self, shape: tuple[Any, ...]) -> str:
        """What is known about the symbols in a shape, for a message."""
        known = []
        for symbol in {s: None for n in shape if is_symbolic(n) for s in n.free_symbols}:
            least, most = self._ranges.get(symbol, (0, None))
            if symbol in self._bound:
                known.append(f"{symbol} = {self._bound[symbol]}")
            elif symbol in self._ranges:
                known.append(f"{symbol} from {least}" + ("" if most is None else f" to {most}"))
        return f" with {', '.join(known)}" if known else ""
