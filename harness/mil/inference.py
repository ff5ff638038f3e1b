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
        self._given = {
            name: tuple(map(_Known, var)) if isinstance(var, list | tuple) else _Known(var)
            for name, var in op.inputs.items()
            if name not in constants
        }

    def __call__(self, args: Mapping[str, Value]) -> list[Array]:
        """The outputs of the op.  Raises MilError naming it if its code returns no value."""
        for name, given in self._given.items():
            value = args[name]
            var = (
                tuple(known.at(one) for known, one in zip(given, value, strict=True))
                if isinstance(given, tuple)
                else given.at(value)
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


class _Known:
    """A variable like another one, whose value is known.

    A new one is made for a dtype or a shape that differs from the last: most of the time of a step
    would go into making them.
    """

    def __init__(self, var: Any) -> None:
        self._var = var
        self._like: tuple[object, ...] = ()
        self._made: Any = None
        self._builtin: Any = None

    def at(self, value: Value) -> Any:
        """The variable with this value."""
        is_array = isinstance(value, np.ndarray)
        like = (value.dtype, value.shape) if is_array else (type(value),)
        if like != self._like:
            self._builtin = _type_of(self._var, value)()
        self._builtin.val = value if not is_array or value.shape else value[()]
        if like != self._like:  # coremltools looks at the value when it makes a variable
            self._made = Var(self._var.name, type(self._builtin), self._builtin)
            self._like = like
        return self._made


def _type_of(var: Any, value: Value) -> Any:
    """The type that coremltools gives to a value; that of the variable if it is no array."""
    if not isinstance(value, np.ndarray):
        return var.sym_type
    primitive = types.numpy_type_to_builtin_type(value.dtype)
    return types.tensor(primitive, value.shape) if value.shape else primitive


def _narrowed(value: Any) -> Array:
    array = np.asarray(value)
    narrow = _NARROWED.get(str(array.dtype))
    return array if narrow is None else array.astype(narrow)
