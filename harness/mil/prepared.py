"""Prepares a MIL block to be run many times: reads its constants, finds the code of each op."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.mil import maths, products, writes  # noqa: F401 - they register their kernels
from harness.mil.arrays import Value
from harness.mil.blocks import is_weight, last_reads, reads
from harness.mil.errors import UnknownOpError
from harness.mil.inference import REVIEWED, Inferred
from harness.mil.kernels import KERNELS, Computed
from harness.mil.values import Declared, declared_dtype

#: Ops that hold compressed weights; coremltools' own code unpacks them.
UNPACKED = frozenset(
    {
        "constexpr_affine_dequantize",
        "constexpr_blockwise_shift_scale",
        "constexpr_cast",
        "constexpr_lut_to_dense",
        "constexpr_sparse_to_dense",
    }
)

#: Ops that need more than the values of their inputs; the interpreter itself runs them.
STRUCTURE = frozenset({"cond", "read_state", "coreml_update_state"})

Code = Callable[[dict[str, Value]], list[Any]]
Inputs = dict[str, Any]


@dataclass(frozen=True)
class PreparedOp:
    """One op.

    code: what computes it; None for an op of `STRUCTURE`.  declared: what the program declares for
    each output.  dead: variables that no later op reads.
    """

    op: Any
    code: Code | None
    inputs: Inputs
    declared: tuple[Declared, ...]
    dead: tuple[Any, ...]


@dataclass(frozen=True)
class Prepared:
    """A prepared block.

    ops: all ops that are not weights, in order.  weights: the values of those that are.
    """

    ops: tuple[PreparedOp, ...]
    weights: dict[Any, Value]
    outputs: tuple[Any, ...]


def coverage() -> dict[str, str]:
    """Every op that can be run, and what runs it: "kernel", "value_inference", …"""
    by = {
        "kernel": KERNELS,
        "value_inference": REVIEWED,
        "materialized_val_inference": UNPACKED,
        "interpreter": STRUCTURE | {"const"},
    }
    return dict(sorted((op, code) for code, ops in by.items() for op in ops))


def prepare(block: Any, outer: dict[Any, Value]) -> Prepared:
    """A block, prepared to be run.  outer: values of the weights in the blocks around it.

    Raises UnknownOpError naming the first op that there is no code for.
    """
    ops = [op for op in block.operations if not is_weight(op)]
    weights = {op.outputs[0]: _weight(op) for op in block.operations if is_weight(op)}
    known = outer | weights
    last = last_reads(ops, block.outputs)
    own = {var for op in ops for var in op.outputs}
    steps = []
    for at, op in enumerate(ops):
        used = {*reads(op), *op.outputs} & own
        dead = tuple(var for var in used if last.get(var, at) == at)
        declared = tuple(map(Declared.of, op.outputs))
        steps.append(PreparedOp(op, _code(op, known), dict(op.inputs), declared, dead))
    return Prepared(tuple(steps), weights, tuple(block.outputs))


def _code(op: Any, known: dict[Any, Value]) -> Code | None:
    kind = op.op_type
    constants = {
        name: _values(known, var)
        for name, var in op.inputs.items()
        if all(v in known for v in (var if isinstance(var, list | tuple) else (var,)))
    }
    if kind in STRUCTURE:
        return None
    if kind in KERNELS:
        return Computed(kind, constants)
    if kind in REVIEWED:
        return Inferred(op, [name for name in constants if _has_value(op.inputs[name])])
    raise UnknownOpError(f"no code for the op {kind} ({op.name!r}); see `prepared.coverage()`")


def _values(known: dict[Any, Value], var: Any) -> Value:
    return [known[v] for v in var] if isinstance(var, list | tuple) else known[var]


def _has_value(var: Any) -> bool:
    """False for an unpacked weight: coremltools does not keep its value."""
    return all(v.val is not None for v in (var if isinstance(var, list | tuple) else (var,)))


def _weight(op: Any) -> Value:
    if op.op_type in UNPACKED:
        return np.asarray(op.materialized_val_inference())
    if op.op_type != "const":
        raise UnknownOpError(f"no code for the op {op.op_type} ({op.name!r})")
    value = op.outputs[0].val
    if isinstance(value, str | list):
        return value
    return np.asarray(value, dtype=declared_dtype(op.outputs[0]))
