"""Checks of state: reset, rewind, purity."""

from __future__ import annotations

import torch
from torch import Tensor

from harness import tolerance
from harness.cases import Case
from harness.checks.common import distinct_layers, op_shape
from harness.checks.values import decoder_values  # the oracle of a rewound run is the same
from harness.contract import Subject, Unsupported, kind_of
from harness.findings import Finding
from harness.inputs import random
from harness.runner import (
    RewindRefusedError,
    claim,
    open_decoder,
    open_op,
    run_decoder,
    run_op,
    tokens_for,
)
from harness.schedules import Feed, Reset, Rewind, Schedule


def _require_state(subject: Subject) -> None:
    if kind_of(type(subject)) == "attention":
        raise Unsupported("a stateless operation has nothing to reset or rewind")


def reset(subject: Subject, case: Case) -> Finding:
    """A cache that was used and reset answers with the bits of a fresh one."""
    claim(subject, case)
    _require_state(subject)
    finding = Finding("reset")
    tokens = tokens_for(case)
    used = run_decoder(open_decoder(subject, case), tokens, case.schedule)
    last = max(i for i, s in enumerate(case.schedule.steps) if isinstance(s, Reset))
    before = sum(s.n for s in case.schedule.steps[:last] if isinstance(s, Feed))
    again = Schedule("after the reset", case.schedule.steps[last + 1 :])
    fresh = run_decoder(open_decoder(subject, case), tokens[:, before:], again)
    differs = (used.logits != fresh.logits).any(-1).any(0)
    finding.figure = float(tolerance.row_error(used.logits, fresh.logits).max())
    if differs.any():
        first = int(differs.nonzero()[0])
        finding.fail(
            f"{int(differs.sum())} rows after the reset are not those of a fresh cache, first "
            f"{first}, worst by {finding.figure:.3g}",
            first,
        )
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
    return finding


def purity(subject: Subject, case: Case) -> Finding:
    """Inputs are not modified; two equal runs give equal bits; rows of a batch do not mix."""
    claim(subject, case)
    finding = Finding("purity")
    if kind_of(type(subject)) != "attention":
        _pure_decoder(finding, subject, case)
    if kind_of(type(subject)) != "decoder":
        _pure_op(finding, subject, case)
    return finding


def _pure_decoder(finding: Finding, subject: Subject, case: Case) -> None:
    tokens = tokens_for(case)
    kept = tokens.clone()
    first = run_decoder(open_decoder(subject, case), tokens, case.schedule).logits
    if not tokens.equal(kept):
        finding.fail("feed() modified its tokens")
    second = run_decoder(open_decoder(subject, case), kept.clone(), case.schedule).logits
    if not first.equal(second):
        finding.fail("two equal runs gave different bits")
    if case.batch > 1:
        other = kept.clone()
        other[1] = (other[1] + 1) % case.vocab
        mixed = run_decoder(open_decoder(subject, case), other, case.schedule).logits
        if _others_moved(mixed, first):
            finding.fail("other tokens in row 1 changed other rows of the batch")


def _pure_op(finding: Finding, subject: Subject, case: Case) -> None:
    n = case.schedule.length
    for i, layer in distinct_layers(case.model):
        shape = op_shape(case, i)
        x = random(case, n, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
        kept = x.clone()
        first = run_op(open_op(subject, layer, shape), x, case.schedule)
        for name in "qkv":
            if not getattr(x, name).equal(getattr(kept, name)):
                finding.fail(f"{layer}: {name} was modified in place")
        second = run_op(open_op(subject, layer, shape), kept, case.schedule)
        if not first.equal(second):
            finding.fail(f"{layer}: two equal runs gave different bits")
        if case.batch > 1:
            other = kept.clone()
            for t in other.span(0, n):
                t[1] += 1
            mixed = run_op(open_op(subject, layer, shape), other, case.schedule)
            if _others_moved(mixed, first):
                finding.fail(f"{layer}: other inputs in row 1 changed other rows of the batch")


def _others_moved(mixed: Tensor, first: Tensor) -> bool:
    """True if any batch row but row 1 moved, beyond rounding."""
    rows = torch.arange(len(first)) != 1
    return bool(tolerance.moved(mixed[rows], first[rows]).any())
