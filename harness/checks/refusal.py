"""Check: bad input gets a clear error and leaves the state as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.schedules import Schedule, chunks
from harness.checks.bounds import reference_for
from harness.checks.common import distinct_layers, op_shape
from harness.checks.drive import claim, open_decoder, tokens_for
from harness.contract import AttentionSubject, CacheSubject, Decoder, LayerCache, Subject
from harness.law import Layer
from harness.reference import oracle, tolerance
from harness.reference.cache_decoder import checked_update
from harness.reference.inputs import OP_HEAD_DIM, Inputs, random
from harness.results.finding import Finding, Kind, Status


def refusal(subject: Subject, case: Case) -> Finding:
    """Wrong rank, dtype, batch, heads, width or token ids raise, and later answers are unharmed.

    A chunk longer than announced, or one past max_context, may be refused or answered correctly,
    but never wrongly.
    """
    claim(subject, case)
    finding = Finding("refusal")
    if isinstance(subject, CacheSubject):
        kind = "cache"
        for i, layer in distinct_layers(case.model):
            _refusing_cache(finding, subject, case, i, layer)
    elif isinstance(subject, AttentionSubject):
        kind = "attention"
        _refusing_op(finding, subject, case)
    else:
        kind = "decoder"
        _refusing_decoder(finding, subject, case)
    if finding.status is Status.PASS:
        finding.message = f"{kind}: every bad input was refused"
    return finding


def _attempt(finding: Finding, what: str, call: Callable[[], object]) -> bool:
    """True if the call raised.  Fails the check if it did not, or raised without a message."""
    try:
        call()
    except Exception as error:
        _require_message(finding, what, error)
        return True
    finding.fail(Kind.BAD_INPUT_ACCEPTED, f"{what}: accepted")
    return False


def _require_message(finding: Finding, what: str, error: Exception) -> None:
    """Fail for an error without a message: users must be able to see what they did wrong."""
    if not str(error):
        text = f"{what}: {type(error).__name__} without a message"
        finding.fail(Kind.ERROR_WITHOUT_MESSAGE, text)


def _beyond(case: Case) -> list[Schedule]:
    """Schedules with a longer chunk, or more positions, than the case announces."""
    total = case.max_context
    return [
        Schedule("a chunk beyond max_chunk", chunks(total, (case.max_chunk + 3,))),
        Schedule("past max_context", chunks(total + 2 * case.window, (case.max_chunk,))),
    ]


def _bad_kv(k: Tensor, v: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Updates that no cache of this shape can take."""
    yield "rank 3", k[0], v[0]
    other = torch.float16 if k.dtype != torch.float16 else torch.float32
    yield f"dtype {other}", k.to(other), v.to(other)
    yield "another batch", torch.cat((k, k)), torch.cat((v, v))
    yield "another number of heads", torch.cat((k, k), 1), torch.cat((v, v), 1)
    yield "another head_dim", k[..., :-1], v[..., :-1]
    yield "more keys than values", k, v[:, :, :-1]
    yield f"only values of dtype {other}", k, v.to(other)
    yield "only values of another batch", k, torch.cat((v, v))
    yield "only values of another head_dim", k, v[..., :-1]
    if k.shape[0] > 1:
        yield "one row of the batch", k[:1], v[:1]
    if k.shape[1] > 1:
        yield "one head", k[:, :1], v[:, :1]


def _refusing_cache(
    finding: Finding, subject: CacheSubject, case: Case, i: int, layer: Layer
) -> None:
    shape, schedule = op_shape(case, i), case.schedule
    x = random(case, schedule.length, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
    half = len(schedule.spans()) // 2

    def steps(cache: LayerCache, spans: list[tuple[int, int]]) -> Tensor:
        outs = []
        for a, b in spans:
            q, k, v = x.span(a, b)
            outs.append(oracle.attention(q, *checked_update(cache, k, v)))
        return torch.cat([x.q[:, :, :0], *outs], 2)  # a single feed has no steps before it

    cache = subject.new_cache(layer, shape)
    steps(cache, schedule.spans()[:half])
    want = steps(cache, schedule.spans()[half:])

    cache = subject.new_cache(layer, shape)
    steps(cache, schedule.spans()[:half])
    _, k, v = x.span(0, min(2, case.max_chunk))
    k, v = (torch.cat((t, t), 2)[:, :, :2] for t in (k, v))
    refused = [
        _attempt(finding, f"{layer}: {what}", partial(cache.update, bad_k, bad_v))
        for what, bad_k, bad_v in _bad_kv(k, v)
    ]
    if all(refused) and not steps(cache, schedule.spans()[half:]).equal(want):
        finding.fail(Kind.STATE_CHANGED, f"{layer}: a refused update changed later answers")
    for beyond in _beyond(case):
        _right_or_refused(finding, subject, case, i, layer, beyond)


def _right_or_refused(
    finding: Finding, subject: CacheSubject, case: Case, i: int, layer: Layer, beyond: Schedule
) -> None:
    """Run a schedule beyond the announced limits: every answer before a refusal must be right."""
    shape, what = op_shape(case, i), beyond.name
    n = beyond.length
    x = random(case, n, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
    mask = layer.mask(0, n, n)
    exact = oracle.attention64(x.q, x.k, x.v, mask)
    own = oracle.attention(x.q, x.k, x.v, mask)
    summed = oracle.attention64(x.q, x.k, x.v.abs(), mask)
    bound = tolerance.row_bound(own, exact, mask.sum(-1), OP_HEAD_DIM, 1, summed)
    cache = subject.new_cache(layer, shape)
    for a, b in beyond.spans():
        q, k, v = x.span(a, b)
        try:
            got = oracle.attention(q, *checked_update(cache, k, v))
        except Exception as error:
            _require_message(finding, f"{layer}, {what}", error)
            return
        bad = ~(tolerance.row_error(got, exact[:, :, a:b]) <= bound[a:b])
        if bad.any():
            first = a + int(bad.nonzero()[0])
            _wrong_at(finding, f"{layer}, ", first, case, beyond)
            return


def _refusing_op(finding: Finding, subject: AttentionSubject, case: Case) -> None:
    i, layer = distinct_layers(case.model)[0]
    shape, n = op_shape(case, i), case.schedule.length
    x: Inputs = random(case, n, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
    q, k, v = x.span(0, n)
    for what, args in (
        ("more queries than keys", (torch.cat((q, q), 2), k, v)),
        ("rank 3", (q[0], k[0], v[0])),
        ("keys of another batch", (q, torch.cat((k, k, k)), torch.cat((v, v, v)))),
        ("keys and values of another dtype", (q, k.half(), v.half())),
        ("keys of another head_dim", (q, k[..., :-1], v)),
        ("more keys than values", (q, k, v[:, :, :-1])),
        ("query heads not a multiple of key heads", (q[:, :-1], k, v)),
    ):
        if what.startswith("query heads") and (q.shape[1] - 1) % k.shape[1] == 0:
            continue
        _attempt(finding, what, partial(subject.attend, *args, layer))


def _refusing_decoder(finding: Finding, subject: Subject, case: Case) -> None:
    tokens, schedule = tokens_for(case), case.schedule
    half = len(schedule.spans()) // 2
    first, rest = schedule.spans()[:half], schedule.spans()[half:]

    def steps(decoder: Decoder, spans: list[tuple[int, int]]) -> Tensor:
        fed = [decoder.feed(tokens[:, a:b]).clone() for a, b in spans]
        return torch.cat(fed, 1) if fed else torch.empty(0)  # as in `_refusing_cache`

    decoder = open_decoder(subject, case)
    steps(decoder, first)
    want = steps(decoder, rest)

    decoder = open_decoder(subject, case)
    steps(decoder, first)
    good = tokens[:, : min(2, case.max_chunk)]
    for what, bad in (
        ("tokens of rank 1", good[0]),
        ("float tokens", good.float()),
        ("another batch", torch.cat((good, good))),
        ("a token id past the vocabulary", torch.full_like(good, case.vocab)),
        ("a negative token id", torch.full_like(good, -1)),
    ):
        _attempt(finding, what, partial(decoder.feed, bad))
    if finding.status is Status.PASS and not steps(decoder, rest).equal(want):
        finding.fail(Kind.STATE_CHANGED, "a refused feed changed later answers")
    for beyond in _beyond(case):
        _decoder_right_or_refused(finding, subject, case, beyond)


def _decoder_right_or_refused(
    finding: Finding, subject: Subject, case: Case, beyond: Schedule
) -> None:
    decoder, what = open_decoder(subject, case), beyond.name
    tokens = tokens_for(replace(case, schedule=beyond))
    rows: list[Tensor] = []
    for a, b in beyond.spans():
        try:
            rows.append(decoder.feed(tokens[:, a:b]).clone())
        except Exception as error:
            _require_message(finding, what, error)
            break
    if not rows:
        return
    got = torch.cat(rows, 1)
    fed = tokens[:, : got.shape[1]]
    # The dense run of a decoder opened for the longer context: this one's may be limited too.
    longer = replace(case, schedule=beyond)
    reference = reference_for(subject, open_decoder(subject, longer), longer, fed)
    bad = ~(tolerance.row_error(got, reference.exact) <= reference.bound)
    if bad.any():
        _wrong_at(finding, "", int(bad.nonzero()[0]), case, beyond)


def _wrong_at(finding: Finding, where: str, position: int, case: Case, beyond: Schedule) -> None:
    """Fail for a wrong answer, as wrong values if it comes before anything exceeds the limits."""
    spans = beyond.spans()
    beyonds = (a for a, b in spans if b - a > case.max_chunk or b > case.max_context)
    misuse = next(beyonds, beyond.length)  # a short case may end before that
    if position < misuse:
        text = f"wrong from position {position}, before {beyond.name} at {misuse}: see values"
        finding.fail(Kind.WRONG_VALUES, f"{where}{text}", position)
    else:
        text = f"{beyond.name}: accepted and wrong from position {position}"
        finding.fail(Kind.ACCEPTED_AND_WRONG, f"{where}{text}", position)
