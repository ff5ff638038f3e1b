"""Checks of state: reset, rewind, purity."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.schedules import Feed, Reset, Rewind, Schedule
from harness.checks.bounds import reference_for
from harness.checks.common import distinct_layers, op_shape, require_plain
from harness.checks.drive import (
    Op,
    RewindRefusedError,
    StatelessOp,
    claim,
    open_decoder,
    open_op,
    run_decoder,
    run_op,
    tokens_for,
)
from harness.checks.values import decoder_values  # the oracle of a rewound run is the same
from harness.contract import AttentionSubject, DecoderSubject, Subject, Unsupported
from harness.law import Layer
from harness.reference import tolerance
from harness.reference.inputs import Inputs, random
from harness.results.finding import Finding, Kind


def _require_state(subject: Subject) -> None:
    if isinstance(subject, AttentionSubject):
        raise Unsupported("a stateless operation has nothing to reset or rewind")


def reset(subject: Subject, case: Case) -> Finding:
    """A cache that was used and reset answers as a fresh one does, within the bound."""
    claim(subject, case)
    _require_state(subject)
    if not case.schedule.has(Reset):
        raise Unsupported("the schedule does not reset")
    finding = Finding("reset")
    tokens = tokens_for(case)
    used = run_decoder(open_decoder(subject, case), tokens, case.schedule)
    last = max(i for i, s in enumerate(case.schedule.steps) if isinstance(s, Reset))
    before = sum(s.n for s in case.schedule.steps[:last] if isinstance(s, Feed))
    again = Schedule("after the reset", case.schedule.steps[last + 1 :])
    fresh = run_decoder(open_decoder(subject, case), tokens[:, before:], again)
    difference = tolerance.row_error(used.logits, fresh.logits)
    finding.figure = float(difference.max())
    decoder = open_decoder(subject, case)
    bound = reference_for(subject, decoder, case, fresh.tokens).bound
    finding.bound = float(bound[int(difference.argmax())])
    off = ~(difference <= bound)  # a ring that continues at its old slot sums in another order
    if off.any():
        first = int(off.nonzero()[0])
        finding.fail(
            Kind.RESET_DIFFERS if difference.isfinite().all() else Kind.NOT_A_NUMBER,
            f"{int(off.sum())} rows after the reset differ from those of a fresh cache, first "
            f"{first}, worst by {finding.figure:.3g}",
            first,
        )
    elif finding.figure:
        finding.message = "within the bound, but not bit for bit the answers of a fresh cache"
    return finding


def rewind(subject: Subject, case: Case) -> Finding:
    """After a rewind the logits are right, or the rewind raised; never silently wrong."""
    claim(subject, case)
    _require_state(subject)
    if not case.schedule.has(Rewind):
        raise Unsupported("the schedule does not rewind")
    finding = Finding("rewind")
    try:
        decoder_values(finding, subject, case)
    except RewindRefusedError as refused:
        finding.message = f"refused, as it may: {refused}"
        _refused_cleanly(finding, subject, case)
    return finding


#: Feeds after a refused rewind: a chunk, and decode steps that read what it may have damaged.
_FEEDS_ON = 4


def _refused_cleanly(finding: Finding, subject: Subject, case: Case) -> None:
    """Fail unless the decoder goes on after a refused rewind as if it had never been asked."""
    tokens = tokens_for(case)
    logits = []
    for asks in (True, False):
        decoder, rows, used, left = open_decoder(subject, case), [], 0, case.max_context
        for step in case.schedule.steps:
            if isinstance(step, Feed):
                if used + step.n > case.max_context:  # a granted rewind would have made room
                    break
                rows.append(decoder.feed(tokens[:, used : used + step.n]).clone())
                used, left = used + step.n, left - 1
            elif isinstance(step, Rewind):
                left = min(left, _FEEDS_ON)
                if asks:
                    with suppress(Exception):
                        decoder.rewind(step.length)  # type: ignore[attr-defined]  # optional
                        return  # refused before, granted now: nothing to compare
            if left <= 0:
                break
        logits.append(torch.cat(rows, 1))
    if not logits[0].equal(logits[1]):
        finding.fail(Kind.STATE_CHANGED, "a refused rewind changed later answers")


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
    if not _beside_another(subject, case, kept).equal(first):
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
    if alone.equal(first):
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
        rows.append(mine.feed(tokens[:, a:b]).clone())
        other.feed((tokens[:, a:b] + 1) % case.vocab)
    return torch.cat(rows, 1)


def _pure_op(finding: Finding, subject: Subject, case: Case) -> None:
    n = case.schedule.length
    for i, layer in distinct_layers(case.model):
        shape = op_shape(case, i)
        x = random(case, n, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
        kept = x.clone()
        first = run_op(open_op(subject, layer, shape), x, case.schedule)
        for name in "qkv":
            if not getattr(x, name).equal(getattr(kept, name)):
                finding.fail(Kind.INPUT_CHANGED, f"{layer}: {name} was modified in place")
        if isinstance(subject, AttentionSubject):
            _pure_attention(finding, subject, layer, kept)
        second = run_op(_spoiling(open_op(subject, layer, shape)), kept, case.schedule)
        if not first.equal(second):
            alone = run_op(open_op(subject, layer, shape), kept.clone(), case.schedule)
            if alone.equal(first):
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


def _pure_attention(
    finding: Finding, subject: AttentionSubject, layer: Layer, kept: Inputs
) -> None:
    mine = kept.clone()
    subject.attend(mine.q, mine.k, mine.v, layer)
    for name in "qkv":
        if not getattr(mine, name).equal(getattr(kept, name)):
            finding.fail(Kind.INPUT_CHANGED, f"{layer}: {name} was modified in place")


def _spoiling(op: Op) -> Op:
    """The operation, with the keys and values passed to it overwritten with NaN after each step."""

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if isinstance(op, StatelessOp):
            return op(q, k, v)  # here the harness keeps keys and values itself
        k, v = k.clone(), v.clone()
        out = op(q, k, v)
        k.fill_(torch.nan)
        v.fill_(torch.nan)
        return out

    return step


def _others_moved(mixed: Tensor, first: Tensor, row: int) -> bool:
    """True if any batch row except `row` moved by more than rounding."""
    rows = torch.arange(len(first)) != row
    return bool(tolerance.moved(mixed[rows], first[rows]).any())
