"""Beyond what was announced: longer chunks, and positions past max_context.

Either may be refused.  Up to a refusal every answer must be right, and what still fits after it.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.schedules import Schedule, chunks
from harness.checks.bounds import reference_for
from harness.checks.common import device_of, new_cache, op_shape, stored_dtype
from harness.checks.drive import Op, cache_op, open_decoder, tokens_for
from harness.checks.op_reference import OpReference, op_reference
from harness.checks.refusal.attempts import require_message
from harness.contract import CacheSubject, LayerCache, Subject
from harness.law import Layer
from harness.reference import tolerance
from harness.reference.inputs import Inputs, random
from harness.results.finding import Finding, Kind


def cache_beyond(finding: Finding, subject: CacheSubject, case: Case, i: int, layer: Layer) -> None:
    """Every schedule beyond the limits, on one layer's cache."""
    for beyond in _beyond(case):
        _right_or_refused(finding, subject, case, i, layer, beyond)


def decoder_beyond(finding: Finding, subject: Subject, case: Case) -> None:
    """Every schedule beyond the limits, on a whole decoder."""
    for beyond in _beyond(case):
        _decoder_right_or_refused(finding, subject, case, beyond)


def _beyond(case: Case) -> list[Schedule]:
    """Schedules longer than the case announces."""
    total = case.max_context
    full = chunks(total, (case.max_chunk,))
    return [
        Schedule("a chunk beyond max_chunk", chunks(total, (case.max_chunk + 3,))),
        Schedule("past max_context", chunks(total + 2 * case.window, (case.max_chunk,))),
        Schedule("one token past max_context", (*full, *chunks(2, (1,)))),
    ]


def _right_or_refused(
    finding: Finding, subject: CacheSubject, case: Case, i: int, layer: Layer, beyond: Schedule
) -> None:
    """Run a schedule beyond what was announced: up to a refusal, every answer must be right."""
    shape, what = op_shape(case, i), beyond.name
    n = beyond.length
    x = random(case, n, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
    reference = op_reference(x.q, x.k, x.v, layer.mask(0, n, n), stored_dtype(subject))
    cache = new_cache(subject, layer, shape)
    step = cache_op(cache, device_of(subject))
    for a, b in beyond.spans():
        try:
            got = step(*x.span(a, b))
        except Exception as error:
            require_message(finding, f"{layer}, {what}", error)
            problem = _goes_on(cache, step, x, case, reference, a)
            if problem:
                text = f"{layer}, {what}: refused at position {a}, but {problem}"
                finding.fail(Kind.STATE_CHANGED, text)
            return
        bad = ~(tolerance.row_error(got, reference.exact[:, :, a:b]) <= reference.bound[a:b])
        if bad.any():
            first = a + int(bad.nonzero()[0])
            _wrong_at(finding, f"{layer}, ", first, case, beyond)
            return


def _goes_on(
    cache: LayerCache, step: Op, x: Inputs, case: Case, reference: OpReference, held: int
) -> str:
    """What is wrong with the good updates after a refusal at `held` positions; "" where nothing is.

    As many positions as there is still room for; then, after a reset, the first ones once more.
    """
    t = min(case.max_chunk, case.max_context - held)
    problem = _wrong(step, x, reference, held, held + t) if t > 0 else ""
    if problem:
        return f"a good update after it {problem}"
    cache.reset()
    t = min(case.max_chunk, case.max_context)
    problem = _wrong(step, x, reference, 0, t)
    return f"a good update after a reset {problem}" if problem else ""


def _wrong(step: Op, x: Inputs, reference: OpReference, a: int, b: int) -> str:
    try:
        got = step(*x.span(a, b))
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    errors = tolerance.row_error(got, reference.exact[:, :, a:b])
    return "" if bool((errors <= reference.bound[a:b]).all()) else "is answered wrongly"


def _decoder_right_or_refused(
    finding: Finding, subject: Subject, case: Case, beyond: Schedule
) -> None:
    decoder, what = open_decoder(subject, case), beyond.name
    tokens = tokens_for(replace(case, schedule=beyond))
    rows: list[Tensor] = []
    for a, b in beyond.spans():
        try:
            rows.append(decoder.feed(tokens[:, a:b]).cpu().clone())
        except Exception as error:
            require_message(finding, what, error)
            t = min(case.max_chunk, case.max_context - a)
            if t > 0:  # there is still room: what was refused must not have taken any
                try:
                    rows.append(decoder.feed(tokens[:, a : a + t]).cpu().clone())
                except Exception as second:
                    text = f"{what}: refused at position {a}, but a good feed after it raises "
                    text += f"{type(second).__name__}: {second}"
                    finding.fail(Kind.STATE_CHANGED, text)
            break
    if not rows:
        return
    got = torch.cat(rows, 1)
    fed = tokens[:, : got.shape[1]]
    # Dense runs of a decoder that was opened for the longer context: this one's may end as well.
    longer = replace(case, schedule=beyond)
    reference = reference_for(subject, open_decoder(subject, longer), longer, fed)
    bad = ~(tolerance.row_error(got, reference.exact) <= reference.bound)
    if bad.any():
        _wrong_at(finding, "", int(bad.nonzero()[0]), case, beyond)


def _wrong_at(finding: Finding, where: str, position: int, case: Case, beyond: Schedule) -> None:
    """Fail for a wrong answer: one before anything beyond the limits is no matter of refusal."""
    spans = beyond.spans()
    beyonds = (a for a, b in spans if b - a > case.max_chunk or b > case.max_context)
    misuse = next(beyonds, beyond.length)  # a short case may end before there is any
    if position < misuse:
        text = f"wrong from position {position}, before {beyond.name} at {misuse}: see values"
        finding.fail(Kind.WRONG_VALUES, f"{where}{text}", position)
    else:
        text = f"{beyond.name}: accepted and wrong from position {position}"
        finding.fail(Kind.ACCEPTED_AND_WRONG, f"{where}{text}", position)
