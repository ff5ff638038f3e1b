"""Walks the ops of a MIL block, including those in blocks inside ops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def reads(op: Any) -> Iterator[Any]:
    """Every variable that an op reads, also in the blocks inside it."""
    yield from op.get_flattened_inputs()
    for block in op.blocks:
        yield from block.outputs
        for inner in block.operations:
            yield from reads(inner)


def last_reads(ops: Sequence[Any], returned: Sequence[Any]) -> dict[Any, int]:
    """For each variable, the index of the last op that reads it; len(ops) if it is returned."""
    last = {var: at for at, op in enumerate(ops) for var in reads(op)}
    return last | dict.fromkeys(returned, len(ops))


def all_ops(ops: Sequence[Any]) -> Iterator[Any]:
    """Every op, including those in blocks inside others."""
    for op in ops:
        yield op
        for block in op.blocks:
            yield from all_ops(block.operations)


def is_weight(op: Any) -> bool:
    """True for an op that makes a constant, plain or compressed: it is there before a run."""
    return bool(op.op_type == "const" or op.op_type.startswith("constexpr_"))
