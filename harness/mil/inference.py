"""Runs ops with coremltools' own code, their `value_inference`, on real values.

coremltools has this code to fold constants during conversion.  For ops that move, shape, compare
or cast values it defines the op, and is used here.  Only the ops in `REVIEWED` are run this way,
because some of the code is wrong: `scaled_dot_product_attention` ignores a mask that is not a
constant, `concat` ignores `interleave`, and `cumsum` fails on `exclusive`.  Its float16 arithmetic
also rounds after each NumPy call rather than after each op.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Var, types

from harness.mil.arrays import Array, Value
from harness.mil.errors import MilError

#: Ops whose `value_inference` was reviewed; tests compare its answers with NumPy's.
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


#: Ops that select along `axis` by `indices`.
_SELECTING = frozenset({"gather", "gather_along_axis"})

#: Dtypes that `value_inference` computes in but MIL does not have, and what MIL holds instead.
_NARROWED = {"int64": "int32", "float64": "float32"}


class Inferred:
    """Runs one op on given values; the op itself is not changed.

    constants: names of the inputs whose values the op already has.
    """

    def __init__(self, op: Any, constants: Collection[str]) -> None:
        self.op = op
        self._twin = copy.copy(op)
        self._twin._input_vars = dict(op._input_vars)
        self._given = {name: var for name, var in op.inputs.items() if name not in constants}

    def __call__(self, args: Mapping[str, Value]) -> list[Array]:
        """The outputs of the op.  Raises MilError naming it if its code returns no value."""
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
            raise MilError(f"{what}: coremltools' value_inference returns no value")
        return [_narrowed(value) for value in results]

    def _check_indices(self, args: Mapping[str, Value]) -> None:
        """Check that no index is negative or too large, if the op is that of iOS 17 or later.

        Such an op has an input `validate_indices`; its indices may not count from the end.
        """
        if "validate_indices" in args:
            check_indices(self.op.op_type, args["indices"], args["x"].shape[int(args["axis"])])


def check_indices(op: str, indices: Any, length: int) -> None:
    """Raise MilError unless all indices are in 0…length-1: Core ML does not define any other."""
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
