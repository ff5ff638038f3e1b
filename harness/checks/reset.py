"""Check: a cache that was used and reset answers as a fresh one does."""

from __future__ import annotations

from harness.cases.case import Case
from harness.cases.schedules import Feed, Reset, Schedule
from harness.checks.bounds import reference_for
from harness.checks.common import last_of_first_feed, require_memory, require_numbers, require_state
from harness.checks.drive import claim, open_decoder, run_decoder, tokens_for
from harness.contract import Subject, Unsupported
from harness.reference import tolerance
from harness.results.finding import Finding, Kind


def reset(subject: Subject, case: Case) -> Finding:
    """A cache that was used and reset answers as a fresh one does, within the bound."""
    claim(subject, case)
    require_state(subject)
    if not case.schedule.has(Reset):
        raise Unsupported("the schedule does not reset")
    finding = Finding("reset")
    tokens = tokens_for(case)
    used = run_decoder(open_decoder(subject, case), tokens, case.schedule)
    last = max(i for i, s in enumerate(case.schedule.steps) if isinstance(s, Reset))
    before = sum(s.n for s in case.schedule.steps[:last] if isinstance(s, Feed))
    again = Schedule("after the reset", case.schedule.steps[last + 1 :])
    fresh = run_decoder(open_decoder(subject, case), tokens[:, before:], again)
    if not require_numbers(finding, fresh.logits):
        return finding
    at = last_of_first_feed(case, again)
    if at is not None:
        other = tokens[:, before:].clone()
        other[:, at] = (other[:, at] + 1) % case.vocab
        changed = run_decoder(open_decoder(subject, case), other, again).logits
        if not require_memory(finding, changed[:, at + 1 :], fresh.logits[:, at + 1 :]):
            return finding
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
