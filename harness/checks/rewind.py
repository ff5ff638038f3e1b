"""Check: after a rewind the answers are right, or the rewind raised, with reason and no harm."""

from __future__ import annotations

from contextlib import suppress

import torch

from harness.cases.case import Case
from harness.cases.schedules import Feed, Rewind
from harness.checks.common import require_state
from harness.checks.drive import RewindRefusedError, claim, open_decoder, tokens_for
from harness.checks.rewind_claims import (
    positions_rewound,
    refused_though_held,
    refused_though_stated,
)
from harness.checks.rewind_kinds import every_kind
from harness.checks.values import decoder_values  # the oracle of a rewound run is the same
from harness.contract import CacheSubject, Subject, Unsupported
from harness.reference import tolerance
from harness.results.finding import Finding, Kind, Status

#: The schedule beside which rewinds of every kind are made: once a model is enough.
CARRIER = "rewind-twice"


def rewind(subject: Subject, case: Case) -> Finding:
    """After a rewind the logits are right, or the rewind raised; never silently wrong."""
    claim(subject, case)
    require_state(subject)
    if not case.schedule.has(Rewind):
        raise Unsupported("the schedule does not rewind")
    finding = Finding("rewind")
    finding.bytes["rewound"], told = 0, ""
    try:
        decoder_values(finding, subject, case)
    except RewindRefusedError as refused:
        if isinstance(subject, CacheSubject):
            for problem in refused_though_held(subject, case):
                finding.fail(Kind.REFUSES_WHAT_IT_HOLDS, problem)
        _refused_cleanly(finding, subject, case)
        told = f"refused, as it may: {refused}"
    else:
        finding.bytes["rewound"] = positions_rewound(case)
    if finding.status is Status.PASS and case.schedule.name == CARRIER:
        every_kind(finding, subject, case)
    if finding.status is Status.PASS:
        finding.message = told or finding.message
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
                rows.append(decoder.feed(tokens[:, used : used + step.n]).cpu().clone())
                used, left = used + step.n, left - 1
            elif isinstance(step, Rewind):
                left = min(left, _FEEDS_ON)
                if asks:
                    with suppress(Exception):
                        decoder.rewind(step.length)  # type: ignore[attr-defined]  # optional
                        return  # refused before, granted now: nothing to compare
                    problem = refused_though_stated(decoder, case, step.length)
                    if problem:
                        finding.fail(Kind.REFUSES_WHAT_IT_HOLDS, problem)
            if left <= 0:
                break
        logits.append(torch.cat(rows, 1))
    if not tolerance.same_bits(*logits):
        finding.fail(Kind.STATE_CHANGED, "a refused rewind changed later answers")
