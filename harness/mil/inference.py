"""Ops by coremltools' own code: `type_inference` and `value_inference` of the op, on real values.

coremltools evaluates ops at conversion to fold constants.  For what moves, shapes, compares or
casts values that code is the definition of the op, and is used here.  Only ops listed in
`REVIEWED` are: some of it is wrong (that of `scaled_dot_product_attention` ignores a mask that is
no constant), and arithmetic in float16 there rounds each NumPy step rather than each op.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import Var, types

from harness.mil.errors import MilError
from harness.mil.values import Array, Value

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
        "concat",
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
        "cumsum",
        "fill",
        "fill_like",
        "non_zero",
        "range_1d",
        "reduce_argmax",
        "reduce_argmin",
        "topk",
    }
)


def infer(op: Any, args: Mapping[str, Value]) -> list[Array]:
    """The outputs of `op` on given inputs, by its own code; the op itself is left as it was.

    Raises MilError naming the op where its code gives no value.
    """
    twin = copy.copy(op)
    twin._input_vars = dict.fromkeys(op._input_vars)
    for name, value in args.items():
        given = op.inputs[name]
        var = (
            tuple(_known(v, x) for v, x in zip(given, value, strict=True))
            if isinstance(given, list | tuple)
            else _known(given, value)
        )
        twin._input_vars[name] = var
        setattr(twin, name, var)
    declared = twin.type_inference()
    declared = declared if isinstance(declared, tuple) else (declared,)
    values = twin._auto_val(declared)
    if any(value is None for value in values):
        raise MilError(f"{op.op_type} {op.name!r}: coremltools' value_inference gives no value")
    return [_as_array(kind, value.val) for kind, value in zip(declared, values, strict=True)]


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


def _as_array(kind: Any, value: Any) -> Array:
    """What was inferred, in the dtype that was inferred for it: folding yields int64 for int32."""
    primitive = kind.get_primitive() if types.is_tensor(kind) else kind
    return np.asarray(value, dtype=types.nptype_from_builtin(primitive))
