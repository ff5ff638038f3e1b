"""The sliced-Q graph pass of coremltools: attention a piece of the query at a time.

A fused attention op needs its whole scores, L x S of them per head, at once; sliced by rows of the
query it needs a part of them at a time, for the same result.  Importing this module registers the
pass as `NAME`.

    log = Log()
    model = ct.convert(..., pass_pipeline=pipeline(log=log))
    print(log)

Its place is the end of the common passes (`pipeline` puts it there): by then the ops have their
final precision, lengths that can be known are known, and no later pass looks for the fused op.  The
converter's backend passes that follow drop what became unused and merge equal constants.
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
    """Slices every attention, fused or written out, in functions and in blocks within them.

    Options, by ``PassPipeline.set_options``:

    - min_seq_length: shortest query that is sliced; by default 64 where the length is known and
      1280 where it is known at run time only.  There the program decides: it holds both forms,
      unless the declared range of the length leaves but one.
    - seq_length_divider: pieces that a query is cut into, 16 by default; a shorter query into
      single rows.
    - log: a `Log`, to which every decision is added.

    A row of the output whose mask hides every key is NaN, as by the op itself: it has no right
    answer, and zeros would hide that.

    Raises ValueError naming the option for a value that is not allowed.
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
        """Slice in place."""
        for name, function in prog.functions.items():
            ranges = declared_ranges(function)
            for place, pieces in list(self._attention(function, name)):
                decision = self._treat(pieces(), place, ranges)
                self.log.append(decision)
                _logger.info("%s", decision)

    def _attention(self, block: Any, place: str) -> Iterator[tuple[str, Callable[[], Pieces]]]:
        """Every attention of a block and of the blocks within, with where it stands.

        Each is looked at when its turn comes: by then it may read what another was sliced into.
        """
        for op in block.operations:
            if str(self) in op.scopes.get(ScopeSource.COREMLTOOLS_GRAPH_PASS, ()):
                continue  # a piece of what an earlier run has cut
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
        return decide(True, f"cut into {len(parts)} of at most {max(parts)} rows", parts)

    def _treat_dynamic(self, pieces: Pieces, lengths: Range) -> tuple[bool, str]:
        shortest, longest = lengths
        wanted = MIN_DYNAMIC if self.min_seq_length is None else self.min_seq_length
        parts = self.seq_length_divider
        least = max(wanted, parts)  # a piece has one row at least
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
    """A `PassPipeline` with the pass at the end of `base`, by default coremltools' own default.

    Raises ValueError naming the option for a value that is not allowed.
    """
    options = {"min_seq_length": min_seq_length, "seq_length_divider": seq_length_divider}
    for name, value in options.items():
        setattr(SlicedQ(), name, value)  # here, not in the middle of a conversion
    passes = ct.PassPipeline.DEFAULT if base is None else base
    passes.append_pass(NAME)
    passes.set_options(NAME, options | ({} if log is None else {"log": log}))
    return passes


def _check_int(name: str, value: object, minimum: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"pass option {name} must be an integer >= {minimum}, got {value!r}")


@contextmanager
def _in_place_of(pieces: Pieces) -> Iterator[None]:
    """New ops go before the last op of an attention, and are said to come from where it came."""
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
    """Both forms, of which the program takes the sliced one from `least` rows on."""
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
    """Let `new` take the place of an attention's output, and remove its ops."""
    last = pieces.ops[-1]
    block = last.enclosing_block
    _retyped(new, pieces.old)
    block.replace_uses_of_var_after_op(anchor_op=last, old_var=pieces.old, new_var=new)
    block.remove_ops(pieces.ops)


def _retyped(new: Any, old: Any) -> Any:
    """`new`, declared in the shape of `old`: unknown lengths that are joined or broadcast get a
    fresh symbol, but it is the same length, and what follows was written with that in mind."""
    dims = zip(new.shape, old.shape, strict=True)
    if all(a == b or is_symbolic(a) or is_symbolic(b) for a, b in dims):
        new._sym_type = old.sym_type
    return new
