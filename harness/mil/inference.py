"""Ops by coremltools' own code: their `value_inference`, on real values.

coremltools evaluates ops at conversion to fold constants.  For what moves, shapes, compares or
casts values that code is the definition of the op, and is used here.  Only ops listed in
`REVIEWED` are: some of it is wrong (that of `scaled_dot_product_attention` ignores a mask that is
no constant, that of `concat` ignores `interleave`, that of `cumsum` fails on `exclusive`), and
arithmetic in float16 there rounds each NumPy step rather than each op.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Var, types

from harness.mil.arrays import Array, Value
from harness.mil.errors import MilError

#: Ops whose `value_inference` was read, and is held to torch's answers by the tests.
REVIEWED = frozenset(
    {
        "equal",
        "greater",
        "greater_equal",
        "less",
        "less_equal",
        "logical_and",
        "logical_not",
        "logical_or",
        "logical_xor",
        "not_equal",
        "select",
    }
    | {
        "expand_dims",
        "flatten2d",
        "identity",
        "reshape",
        "shape",
        "split",
        "squeeze",
        "stack",
        "tile",
        "transpose",
    }
    | {
        "band_part",
        "gather",
        "gather_along_axis",
        "pad",
        "reverse",
        "slice_by_index",
        "slice_by_size",
        "slice_update",
    }
    | {
        "argsort",
        "cast",
        "fill",
        "fill_like",
        "non_zero",
        "range_1d",
        "reduce_argmax",
        "reduce_argmin",
        "topk",
    }
)


#: Ops whose `indices` select along `axis`.
_SELECTING = frozenset({"gather", "gather_along_axis"})

#: What folding computes in, and what MIL holds instead: it knows neither.
_NARROWED = {"int64": "int32", "float64": "float32"}


class Inferred:
    """One op with values in place of its variables; the op itself is left as it is.

    constants: names of the inputs whose values the op knows by itself.
    """

    def __init__(self, op: Any, constants: Collection[str]) -> None:
        self.op = op
        self._twin = copy.copy(op)
        self._twin._input_vars = dict(op._input_vars)
        self._given = {name: var for name, var in op.inputs.items() if name not in constants}

    def __call__(self, args: Mapping[str, Value]) -> list[Array]:
        """The outputs of the op.  Raises MilError naming it where its code gives no value."""
        for name, given in self._given.items():
            value = args[name]
            var = (
                tuple(map(_known, given, value))
                if isinstance(given, list | tuple)
                else _known(given, value)
            )
            self._twin._input_vars[name] = var
            setattr(self._twin, name, var)
        if self.op.op_type in _SELECTING:
            self._check_indices(args)
        result = self._twin.value_inference()
        results = result if isinstance(result, list | tuple) else (result,)
        if any(value is None for value in results):
            what = f"{self.op.op_type} {self.op.name!r}"
            raise MilError(f"{what}: coremltools' value_inference gives no value")
        return [_narrowed(value) for value in results]

    def _check_indices(self, args: Mapping[str, Value]) -> None:
        """Since iOS 17 (the op then has `validate_indices`) no index counts from the end."""
        if "validate_indices" in args:
            check_indices(self.op.op_type, args["indices"], args["x"].shape[int(args["axis"])])


def check_indices(op: str, indices: Any, length: int) -> None:
    """Raise MilError unless all are in 0…length-1: others are undefined in Core ML."""
    low, high = (int(indices.min()), int(indices.max())) if len(indices.shape) else (indices,) * 2
    if not 0 <= low <= high < length:
        raise MilError(f"{op}: indices must be in 0…{length - 1}, got {low}…{high}")


def _known(var: Any, value: Value) -> Any:
    """A variable like `var` whose value is known."""
    if isinstance(value, np.ndarray):
        primitive = types.numpy_type_to_builtin_type(value.dtype)
        kind = types.tensor(primitive, value.shape) if value.shape else primitive
        content = value if value.shape else value[()]
    else:
        kind, content = var.sym_type, value
    builtin = kind()
    builtin.val = content
    return Var(var.name, kind, builtin)


def _narrowed(value: Any) -> Array:
    array = np.asarray(value)
    narrow = _NARROWED.get(str(array.dtype))
    return array if narrow is None else array.astype(narrow)
