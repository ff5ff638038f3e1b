"""Peak bytes of a MIL block, from its ops alone, and what is live at the peak.

Each output of an op is a buffer.  It lives from the op that makes it until the last op that reads
it has finished; what the block returns lives to the end.  Inputs, states and weights are there
beforehand and are not counted.  An engine may alias, fuse and tile, so these are bounds for
comparing programs, not what a device will show.  There are three, because one alone can mislead:

- `outputs_only`: counts outputs, in the program's own order.  A fused attention op then costs
  nothing, although it must form its scores somewhere, and slicing it seems to *raise* the peak.
- `fused`: also counts two buffers of scores (before and after the softmax) while a fused attention
  op runs.
- `breadth_first`: like `fused`, but in the order of the ops' depth in the graph.  A graph does not
  forbid running independent chunks side by side; this shows what slicing saves in that case.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from coremltools.converters.mil.mil import types

from harness.mil.blocks import all_ops, is_weight, last_reads, reads
from harness.mil.values import declared_bytes, item_bits, whole_bytes

ATTENTION = "scaled_dot_product_attention"


@dataclass(frozen=True)
class Buffer:
    """A value, or the workspace of an op, that is live at the peak."""

    name: str
    op_type: str
    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    last_reader: str  # "" for a workspace and for what the block returns


@dataclass(frozen=True)
class Bound:
    """One bound: peak bytes, the op at which they are reached, and what is live, largest first."""

    nbytes: int
    at: str
    live: tuple[Buffer, ...]

    def table(self) -> str:
        """The bound as text to read: a line for the peak, and one for each live buffer."""
        lines = [f"{self.nbytes:,} bytes at {self.at}"]
        for b in self.live:
            shape = "×".join(map(str, b.shape))
            until = f"until {b.last_reader}" if b.last_reader else ""
            lines.append(
                f"{b.nbytes:>14,}  {b.op_type:<30} {b.name:<40} {b.dtype} {shape}  {until}".rstrip()
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Peak:
    """What a block needs, in bytes.

    written: bytes that ops write in one run, by op type; of several branches, only the one that
    writes most counts.
    weights: constants as they are stored.  unpacked: compressed constants after unpacking.
    """

    outputs_only: Bound
    fused: Bound
    breadth_first: Bound
    written: dict[str, int]
    weights: int
    unpacked: int

    @cached_property
    def bytes_written(self) -> int:
        """Bytes that all ops write in one run."""
        return sum(self.written.values())


def peak(block: Any) -> Peak:
    """The bounds on the peak of a block (or function) of a MIL program.

    Raises ValueError naming a value of dynamic shape, whose bytes are not known.
    """
    ops = [op for op in block.operations if not is_weight(op)]
    levels = _levels(ops)
    deepest_last = sorted(ops, key=lambda op: levels[op])  # stable: program order within a level
    consts = [op for op in all_ops(block.operations) if is_weight(op)]
    return Peak(
        outputs_only=_bound(ops, block.outputs, with_workspace=False),
        fused=_bound(ops, block.outputs, with_workspace=True),
        breadth_first=_bound(deepest_last, block.outputs, with_workspace=True),
        written=dict(_written(ops)),
        weights=sum(_constant_bytes(op) for op in consts if op.op_type == "const"),
        unpacked=sum(declared_bytes(op.outputs[0]) for op in consts if op.op_type != "const"),
    )


def _written(ops: Sequence[Any]) -> Counter[str]:
    """Bytes that ops write, by op type."""
    out: Counter[str] = Counter()
    for op in ops:
        if not is_weight(op):
            out[op.op_type] += sum(map(declared_bytes, op.outputs))
            branches = sorted((_written(b.operations) for b in op.blocks), key=Counter.total)
            out.update(*branches[-1:])
    return out


def scores_bytes(op: Any) -> int:
    """Bytes of the scores of a fused attention op, (…, L, S) in the dtype of its query."""
    shape = (*op.query.shape[:-1], op.key.shape[-2])
    return whole_bytes(math.prod(map(int, shape)) * item_bits(op.query))


def _bound(ops: Sequence[Any], returned: Sequence[Any], *, with_workspace: bool) -> Bound:
    """The peak in the order of `ops`, and what is live at it."""
    last = last_reads(ops, returned)
    live: dict[Any, int] = {}
    expiring: dict[int, list[Any]] = {}
    total, best, best_at = 0, -1, 0
    best_live: list[Any] = []
    for at, op in enumerate(ops):
        for var in op.outputs:
            live[var] = declared_bytes(var)
            total += live[var]
            expiring.setdefault(last.get(var, at), []).append(var)
        here = total + sum(_workspaces(op, with_workspace))
        if here > best:
            best, best_at, best_live = here, at, list(live)
        for var in expiring.pop(at, ()):
            total -= live.pop(var)
    if not ops:
        return Bound(0, "", ())
    op = ops[best_at]
    names = {at: other.name for at, other in enumerate(ops)}
    buffers = [_buffer(var, names.get(last.get(var, best_at), "")) for var in best_live]
    buffers += [
        Buffer(f"workspace of {op.name}", op.op_type, (), "", n, "")
        for n in _workspaces(op, with_workspace)
    ]
    buffers.sort(key=lambda b: -b.nbytes)
    return Bound(best, f"{op.op_type} {op.name}", tuple(buffers))


def _workspaces(op: Any, fused: bool) -> list[int]:
    """Bytes of each buffer that an op needs while it runs, besides its inputs and outputs."""
    if op.op_type == ATTENTION:
        return [scores_bytes(op)] * 2 if fused else []
    inner = [
        _bound([o for o in b.operations if not is_weight(o)], b.outputs, with_workspace=fused)
        for b in op.blocks
    ]
    return [max(bound.nbytes for bound in inner)] if inner else []


def _levels(ops: Sequence[Any]) -> dict[Any, int]:
    """Depth of each op in the graph: one more than that of the deepest op that it reads from."""
    level: dict[Any, int] = {}
    made: dict[Any, int] = {}
    for op in ops:
        level[op] = 1 + max((made.get(var, 0) for var in reads(op)), default=0)
        made.update(dict.fromkeys(op.outputs, level[op]))
    return level


def _constant_bytes(op: Any) -> int:
    var = op.outputs[0]
    return declared_bytes(var) if types.is_tensor(var.sym_type) else 0


def _buffer(var: Any, last_reader: str) -> Buffer:
    return Buffer(
        name=var.name,
        op_type=var.op.op_type,
        shape=tuple(map(int, var.shape)),
        dtype=types.builtin_to_string(var.dtype),
        nbytes=declared_bytes(var),
        last_reader=last_reader,
    )
