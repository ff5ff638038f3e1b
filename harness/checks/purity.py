"""Check: inputs are left alone, equal runs give equal bits, and the rows of a batch do not mix."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.common import (
    device_of,
    distinct_layers,
    last_of_first_feed,
    on_device,
    op_shape,
    require_memory,
    require_numbers,
    require_plain,
)
from harness.checks.drive import (
    Op,
    StatelessOp,
    claim,
    open_decoder,
    open_op,
    run_decoder,
    run_op,
    tokens_for,
)
from harness.contract import AttentionSubject, CacheShape, DecoderSubject, Subject
from harness.law import Layer
from harness.reference import tolerance
from harness.reference.inputs import Inputs, random
from harness.results.finding import Finding, Kind


def purity(subject: Subject, case: Case) -> Finding:
    """Inputs are not modified; two equal runs give equal bits; rows of a batch do not mix."""
    claim(subject, case)
    require_plain(case)
    finding = Finding("purity")
    if not isinstance(subject, AttentionSubject):
        _pure_decoder(finding, subject, case)
    if not isinstance(subject, DecoderSubject):
        _pure_op(finding, subject, case)
    return finding


def _pure_decoder(finding: Finding, subject: Subject, case: Case) -> None:
    tokens = tokens_for(case)
    kept = tokens.clone()
    first = run_decoder(open_decoder(subject, case), tokens, case.schedule).logits
    if not tokens.equal(kept):
        finding.fail(Kind.INPUT_CHANGED, "feed() modified its tokens")
    if not require_numbers(finding, first):
        return
    at = last_of_first_feed(case, case.schedule)
    if at is not None:
        other = kept.clone()
        other[:, at] = (other[:, at] + 1) % case.vocab
        changed = run_decoder(open_decoder(subject, case), other, case.schedule).logits
        require_memory(finding, changed[:, at + 1 :], first[:, at + 1 :])
    if not tolerance.same_bits(_beside_another(subject, case, kept), first):
        _other_bits(finding, subject, case, kept, first)
    for row in range(case.batch if case.batch > 1 else 0):
        other = kept.clone()
        other[row] = (other[row] + 1) % case.vocab
        mixed = run_decoder(open_decoder(subject, case), other, case.schedule).logits
        if _others_moved(mixed, first, row):
            finding.fail(Kind.ROWS_MIX, f"new tokens in row {row} changed other rows of the batch")


def _other_bits(
    finding: Finding, subject: Subject, case: Case, tokens: Tensor, first: Tensor
) -> None:
    """Fail for a run that differed while another decoder was open; a run alone shows why."""
    alone = run_decoder(open_decoder(subject, case), tokens.clone(), case.schedule).logits
    if tolerance.same_bits(alone, first):
        finding.fail(
            Kind.INSTANCES_MIX,
            "a second decoder, open at the same time, changed the answers of the first",
        )
    else:
        finding.fail(Kind.NOT_REPEATABLE, "two equal runs gave different bits")


def _beside_another(subject: Subject, case: Case, tokens: Tensor) -> Tensor:
    """Logits of a run while a second decoder is fed other tokens between its steps."""
    mine, other = open_decoder(subject, case), open_decoder(subject, case)
    rows = []
    for a, b in case.schedule.spans():
        rows.append(mine.feed(tokens[:, a:b]).cpu().clone())
        other.feed((tokens[:, a:b] + 1) % case.vocab)
    return torch.cat(rows, 1)


def _pure_op(finding: Finding, subject: Subject, case: Case) -> None:
    n = case.schedule.length
    for i, layer in distinct_layers(case.model):
        shape = op_shape(case, i)
        kept = random(case, n, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
        mine = Inputs(kept.label, *on_device(subject, *kept.clone().span(0, n)))
        first = run_op(open_op(subject, layer, shape), mine, case.schedule)
        for name in "qkv":
            if not getattr(mine, name).cpu().equal(getattr(kept, name)):
                finding.fail(Kind.INPUT_CHANGED, f"{layer}: {name} was modified in place")
        if isinstance(subject, AttentionSubject):
            _pure_attention(finding, subject, layer, kept)
        if not require_numbers(finding, first, f"{layer}: "):
            continue
        _remembers(finding, subject, case, layer, shape, kept, first)
        spoiling = _spoiling(open_op(subject, layer, shape), device_of(subject))
        second = run_op(spoiling, kept, case.schedule)
        if not tolerance.same_bits(first, second):
            alone = run_op(open_op(subject, layer, shape), kept.clone(), case.schedule)
            if tolerance.same_bits(alone, first):
                text = f"{layer}: the keys and values passed in are kept, not copied"
                finding.fail(Kind.INPUT_KEPT, text)
            else:
                finding.fail(Kind.NOT_REPEATABLE, f"{layer}: two equal runs gave different bits")
        for row in range(case.batch if case.batch > 1 else 0):
            other = kept.clone()
            for t in other.span(0, n):
                t[row] += 1
            mixed = run_op(open_op(subject, layer, shape), other, case.schedule)
            if _others_moved(mixed, first, row):
                text = f"{layer}: new inputs in row {row} changed other rows of the batch"
                finding.fail(Kind.ROWS_MIX, text)


def _remembers(
    finding: Finding,
    subject: Subject,
    case: Case,
    layer: Layer,
    shape: CacheShape,
    x: Inputs,
    first: Tensor,
) -> None:
    """Fail unless a later answer depends on the first feed's last key and value."""
    spans = case.schedule.spans()
    if len(spans) < 2 or not layer.sees(spans[0][1], spans[0][1] - 1):
        return
    other, at = x.clone(), spans[0][1] - 1
    other.k[:, :, at] += 1
    other.v[:, :, at] += 1
    changed = run_op(open_op(subject, layer, shape), other, case.schedule)
    require_memory(finding, changed[:, :, at + 1 :], first[:, :, at + 1 :], f"{layer}: ")


def _pure_attention(
    finding: Finding, subject: AttentionSubject, layer: Layer, kept: Inputs
) -> None:
    q, k, v = on_device(subject, *(t.clone() for t in (kept.q, kept.k, kept.v)))
    subject.attend(q, k, v, layer)
    for name, mine in zip("qkv", (q, k, v), strict=True):
        if not mine.cpu().equal(getattr(kept, name)):
            finding.fail(Kind.INPUT_CHANGED, f"{layer}: {name} was modified in place")


def _spoiling(op: Op, device: torch.device) -> Op:
    """The operation, with the keys and values passed to it overwritten with NaN after each step."""

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if isinstance(op, StatelessOp):
            return op(q, k, v)  # here the harness keeps keys and values itself
        k, v = (t.to(device, copy=True) for t in (k, v))  # what the cache itself is handed
        out = op(q, k, v)
        k.fill_(torch.nan)
        v.fill_(torch.nan)
        return out

    return step


def _others_moved(mixed: Tensor, first: Tensor, row: int) -> bool:
    """True if any batch row except `row` moved by more than rounding."""
    rows = torch.arange(len(first)) != row
    return bool(tolerance.moved(mixed[rows], first[rows]).any())
