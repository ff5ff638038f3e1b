"""Rewinds of every kind, whatever the schedule: to the end, to nothing, far, in half precision.

The schedules of the plan go back by some positions, in float32, before position 100.  The steps
here are few, and run beside one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.schedules import Feed, Reset, Rewind, Schedule, Step
from harness.checks.bounds import reference_for
from harness.checks.common import device_of, distinct_layers, new_cache, op_shape, stored_dtype
from harness.checks.drive import cache_op, open_decoder, tokens_for
from harness.checks.op_reference import OpReference, op_reference
from harness.contract import CacheSubject, Subject, Unsupported, optional
from harness.law import Layer
from harness.reference import tolerance
from harness.reference.inputs import random
from harness.results.finding import Finding, Kind

#: To the end, to nothing, and by one with a reset after it.
_NEAR: tuple[Step, ...] = (
    *(Feed(4), Rewind(4), Feed(4), Feed(1)),
    *(Rewind(0), Feed(4), Feed(1)),
    *(Rewind(4), Feed(1), Rewind(4), Reset(), Feed(4), Feed(1)),
)
#: The same past position 128, where a signed byte ends.
_FAR: tuple[Step, ...] = (
    *(Feed(33),) * 4,
    *(Rewind(132), Feed(4), Feed(1)),
    *(Rewind(135), Feed(4), Feed(1)),
    *(Rewind(138), Reset(), Feed(4), Feed(1)),
)
_HALF = ("float16", "bfloat16")


@dataclass(frozen=True)
class Segment:
    """Feeds without a reset or a rewind between them.

    after: what came before them.  held: which of the tokens of the whole walk each position holds
    at their end.  start: their first position.  rows: (..., n - start, F), what was answered.
    """

    after: str
    held: list[int]
    start: int
    rows: Tensor


#: Makes the steps on a fresh body; what each segment answered, and must have answered.
Parts = Callable[[tuple[Step, ...]], Iterator[tuple[Segment, OpReference]]]


def every_kind(finding: Finding, subject: Subject, case: Case) -> None:
    """Fail for rewinds of any kind after which, or after a reset that follows, answers are wrong.

    Caches are run layer by layer, and in half precision too.  Decoders are opened for the case
    itself and make the near rewinds alone: some run programs that were made for it.
    """
    if not isinstance(subject, CacheSubject):
        longest, total = _sizes(_NEAR)
        if longest <= case.max_chunk and total <= case.max_context:
            _compare(finding, _NEAR, partial(_decoder, subject, case))
        return
    covers = optional(subject, "covers")
    for dtype in dict.fromkeys((case.dtype, *_HALF)):
        typed = case.with_dtype(dtype)
        if covers is not None and not covers("rewind", typed):
            continue
        for i, layer in distinct_layers(case.model):
            for steps in (_NEAR, _FAR) if dtype == case.dtype else (_NEAR,):
                parts = partial(_cache, subject, typed, i, layer)
                with suppress(Unsupported):  # it claims this precision, or length, for no rewind
                    _compare(finding, steps, parts, f"{layer}, {dtype}, ")


def _compare(finding: Finding, steps: tuple[Step, ...], parts: Parts, where: str = "") -> None:
    """Fail for the first wrong row of the steps, unless feeds alone are answered wrongly too."""
    if any(_first_wrong(*part) is not None for part in parts(_feeds_alone(steps))):
        return
    for part, reference in parts(steps):
        first = _first_wrong(part, reference)
        if first is not None:
            kind = Kind.WRONG_VALUES if part.rows.isfinite().all() else Kind.NOT_A_NUMBER
            text = f"{where}after {part.after}position {first} is answered wrongly"
            finding.fail(kind, text, first)
            return


def _feeds_alone(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """The feeds up to the second step that forgets."""
    forgets = [i for i, step in enumerate(steps) if not isinstance(step, Feed)]
    return tuple(step for step in steps[: forgets[1]] if isinstance(step, Feed))


def _first_wrong(part: Segment, reference: OpReference) -> int | None:
    bad = ~(tolerance.row_error(part.rows, reference.exact) <= reference.bound)
    return part.start + int(bad.nonzero()[0]) if bad.any() else None


def _decoder(
    subject: Subject, case: Case, steps: tuple[Step, ...]
) -> Iterator[tuple[Segment, OpReference]]:
    tokens = tokens_for(replace(case, schedule=Schedule("rewinds", steps)))
    decoder = open_decoder(subject, case)

    def feed(a: int, b: int) -> Tensor:
        return decoder.feed(tokens[:, a:b]).detach().cpu().clone()

    for part in _walk(steps, feed, optional(decoder, "rewind"), decoder.reset):
        whole = reference_for(subject, decoder, case, tokens[:, part.held])
        yield part, OpReference(whole.exact[:, part.start :], whole.bound[part.start :])


def _cache(
    subject: CacheSubject, case: Case, i: int, layer: Layer, steps: tuple[Step, ...]
) -> Iterator[tuple[Segment, OpReference]]:
    longest, total = _sizes(steps)
    shape = replace(op_shape(case, i), max_chunk=longest, max_context=total)
    x = random(case, total, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
    cache = new_cache(subject, layer, shape)
    step = cache_op(cache, device_of(subject))

    def feed(a: int, b: int) -> Tensor:
        return step(*x.span(a, b))

    for part in _walk(steps, feed, optional(cache, "rewind"), cache.reset):
        n = len(part.held)
        q, k, v = (t[:, :, part.held] for t in (x.q, x.k, x.v))
        mask = layer.mask(part.start, n - part.start, n)
        yield part, op_reference(q[:, :, part.start :], k, v, mask, stored_dtype(subject))


def _sizes(steps: tuple[Step, ...]) -> tuple[int, int]:
    """Tokens of the longest feed, and of all: a refused rewind makes no room."""
    sizes = [step.n for step in steps if isinstance(step, Feed)]
    return max(sizes), sum(sizes)


def _walk(
    steps: tuple[Step, ...],
    feed: Callable[[int, int], Tensor],
    rewind: Callable[[int], None],
    reset: Callable[[], None],
) -> Iterator[Segment]:
    """Make the steps, and a last reset; what was fed up to each that may forget.

    A refused rewind forgets nothing, and what follows it is judged elsewhere: it must be what would
    have followed without it, right or wrong.
    """
    held: list[int] = []
    rows: list[Tensor] = []
    start = used = 0
    after, forgot = "", True
    for step in (*steps, Reset()):
        if isinstance(step, Feed):
            rows.append(feed(used, used + step.n))
            held += range(used, used + step.n)
            used += step.n
            continue
        if rows and forgot:
            yield Segment(after, list(held), start, torch.cat(rows, -2))
        rows = []
        if isinstance(step, Rewind):
            forgot = _granted(rewind, step.length)
            after += f"rewind from {len(held)} to {step.length}{'' if forgot else ' (refused)'}, "
            del held[step.length if forgot else len(held) :]
        else:
            reset()
            held, after, forgot = [], f"{after}reset, ", True
        start = len(held)


def _granted(rewind: Callable[[int], None], length: int) -> bool:
    try:
        rewind(length)
    except Exception:
        return False
    return True
