"""A sliced-Q graph pass for coremltools: attention one piece of the query at a time.

A fused attention op holds all its scores, L x S per head, at once.  Sliced by rows of the query it
holds only part of them at a time, and gives the same result.  Importing this module registers the
pass as `NAME`.

    log = Log()
    model = ct.convert(..., pass_pipeline=pipeline(log=log))
    print(log)

It runs at the end of the common passes (`pipeline` puts it there).  By then the ops have their
final precision, lengths that can be known are known, and no later pass looks for the fused op.  The
converter's backend passes run afterwards: they drop unused ops and merge equal constants.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.mil.passes.graph_pass import AbstractGraphPass
from coremltools.converters.mil.mil.passes.pass_registry import register_pass
from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from harness.mil.values import Range, declared_ranges
from harness.schemes.sliced_q.log import Log, SliceDecision
from harness.schemes.sliced_q.slicer import Pieces, Slicer, mb
from harness.schemes.sliced_q.written import WrittenOut, way_of

NAMESPACE = "attention_harness"
NAME = f"{NAMESPACE}::sliced_q"

MIN_STATIC = 64
MIN_DYNAMIC = 1280
DIVIDER = 16

_logger = logging.getLogger(__name__)


@register_pass(namespace=NAMESPACE, name="sliced_q")
class SlicedQ(AbstractGraphPass):  # type: ignore[misc]  # coremltools ships no types
    """Slices every attention, fused or written out, in all functions and the blocks inside them.

    Options, by ``PassPipeline.set_options``:

    - min_seq_length: shortest query that is sliced.  Default: 64 if the length is known, 1280 if
      it is known only at run time.  In the second case the program holds both forms and chooses at
      run time, unless the declared range of the length rules one of them out.
    - seq_length_divider: number of pieces that a query is cut into, by default 16.  A query with
      fewer rows is cut into single rows.
    - log: a `Log`, to which every decision is added.

    An output row whose mask hides every key is NaN, as with the fused op: it has no right answer,
    and zeros would hide that.

    Raises ValueError, naming the option, for a value that is not allowed.
    """

    slicer: type[Slicer] = Slicer

    def __init__(self) -> None:
        super().__init__()
        self._min_seq_length: int | None = None
        self._seq_length_divider = DIVIDER
        self.log = Log()

    @property
    def min_seq_length(self) -> int | None:
        return self._min_seq_length

    @min_seq_length.setter
    def min_seq_length(self, length: int | None) -> None:
        if length is not None:
            _check_int("min_seq_length", length, 0)
        self._min_seq_length = length

    @property
    def seq_length_divider(self) -> int:
        return self._seq_length_divider

    @seq_length_divider.setter
    def seq_length_divider(self, divider: int) -> None:
        _check_int("seq_length_divider", divider, 1)
        self._seq_length_divider = divider

    def apply(self, prog: Any) -> None:
        """Slice every attention of `prog`, in place."""
        for name, function in prog.functions.items():
            ranges = declared_ranges(function)
            for place, pieces in list(self._attention(function, name)):
                decision = self._treat(pieces(), place, ranges)
                self.log.append(decision)
                _logger.info("%s", decision)

    def _attention(self, block: Any, place: str) -> Iterator[tuple[str, Callable[[], Pieces]]]:
        """The place of every attention in a block and the blocks inside it, and what opens it.

        Each is opened only just before it is sliced: it may read the result of slicing another.
        """
        for op in block.operations:
            if str(self) in op.scopes.get(ScopeSource.COREMLTOOLS_GRAPH_PASS, ()):
                continue  # a piece that an earlier run of this pass has cut
            if op.op_type == "scaled_dot_product_attention":
                yield place, partial(self.slicer, op, self.seq_length_divider)
            elif op.op_type == "softmax" and (way := way_of(op)) is not None:
                yield place, partial(WrittenOut, way, self.seq_length_divider)
            for inner in op.blocks:
                yield from self._attention(inner, f"{place}/{inner.name}")

    def _treat(self, pieces: Pieces, place: str, ranges: dict[Any, Range]) -> SliceDecision:
        shape = tuple(str(d) if is_symbolic(d) else int(d) for d in pieces.query.shape)
        length = pieces.query.shape[-2]

        def decide(fired: bool, reason: str, parts: tuple[int, ...] = ()) -> SliceDecision:
            return SliceDecision(
                pieces.old.op.name, place, pieces.form, shape, fired, reason, parts
            )

        reason = pieces.unsliceable()
        if reason:
            return decide(False, reason)
        if is_symbolic(length):
            return decide(*self._treat_dynamic(pieces, ranges.get(length, (1, None))))
        least = MIN_STATIC if self.min_seq_length is None else self.min_seq_length
        if length < max(least, 1):
            return decide(False, f"{length} rows are fewer than min_seq_length {max(least, 1)}")
        spans = pieces.spans()
        with _in_place_of(pieces):
            _replace(pieces, pieces.write(spans))
        parts = tuple(end - start for start, end in spans)
        return decide(True, f"cut into {len(parts)} pieces of at most {max(parts)} rows", parts)

    def _treat_dynamic(self, pieces: Pieces, lengths: Range) -> tuple[bool, str]:
        shortest, longest = lengths
        wanted = MIN_DYNAMIC if self.min_seq_length is None else self.min_seq_length
        parts = self.seq_length_divider
        least = max(wanted, parts)  # every piece has at least one row
        if longest is not None and longest < least:
            return False, f"dynamic length, at most {longest}: below {least}"
        with _in_place_of(pieces):
            if shortest >= least:
                _replace(pieces, pieces.write(pieces.runtime_spans()))
                return True, f"dynamic length, at least {shortest}: cut into {parts} at run time"
            _replace(pieces, _branch(pieces, least))
        return True, f"dynamic length: cut into {parts} at run time from {least} rows on"


def pipeline(
    base: Any = None,
    *,
    min_seq_length: int | None = None,
    seq_length_divider: int = DIVIDER,
    log: Log | None = None,
) -> Any:
    """A `PassPipeline` that ends with this pass.

    base: the pipeline that is extended, in place; by default a new copy of coremltools' default.
    Raises ValueError, naming the option, for a value that is not allowed.
    """
    options = {"min_seq_length": min_seq_length, "seq_length_divider": seq_length_divider}
    for name, value in options.items():
        setattr(SlicedQ(), name, value)  # bad values fail here, not during a conversion
    passes = ct.PassPipeline.DEFAULT if base is None else base
    passes.append_pass(NAME)
    passes.set_options(NAME, options | ({} if log is None else {"log": log}))
    return passes


def _check_int(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"pass option {name} must be an integer >= {minimum}, got {value!r}")


@contextmanager
def _in_place_of(pieces: Pieces) -> Iterator[None]:
    """Write new ops before the last op of an attention, with its scopes as their origin."""
    last = pieces.ops[-1]
    origin = [
        ScopeInfo(source=source, data=data)
        for source, data in last.scopes.items()
        if source != ScopeSource.COREMLTOOLS_GRAPH_PASS
    ]
    pieces.here(last)
    with last.enclosing_block, mb.scope(*origin):
        yield


def _branch(pieces: Pieces, least: int) -> Any:
    """Both forms: the program runs the sliced one if the query has at least `least` rows."""
    last = pieces.ops[-1]
    pieces.hold_inputs()
    enough = pieces.emit(mb.greater_equal, x=pieces.length(), y=np.int32(least))

    def sliced() -> Any:
        pieces.here(None)
        return _retyped(pieces.write(pieces.runtime_spans()), pieces.old)

    def whole() -> Any:
        pieces.here(None)
        return _retyped(pieces.whole(), pieces.old)

    return mb.cond(pred=enough, _true_fn=sliced, _false_fn=whole, before_op=last)


def _replace(pieces: Pieces, new: Any) -> None:
    """Replace an attention's output by `new`, and remove its ops."""
    last = pieces.ops[-1]
    block = last.enclosing_block
    _retyped(new, pieces.old)
    block.replace_uses_of_var_after_op(anchor_op=last, old_var=pieces.old, new_var=new)
    block.remove_ops(pieces.ops)


def _retyped(new: Any, old: Any) -> Any:
    """`new`, declared to have the shape of `old`.

    Joining or broadcasting unknown lengths makes a fresh symbol.  The length is still the same, and
    the ops that follow were written for the old symbol.
    """
    dims = zip(new.shape, old.shape, strict=True)
    if all(a == b or is_symbolic(a) or is_symbolic(b) for a, b in dims):
        new._sym_type = old.sym_type
    return new
