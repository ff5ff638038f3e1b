"""Every correct subject passes, and no alarm is false.

That each defect is caught, and by which checks, is shown by suites/meta/cover/test_short_matrix.py.
"""

from __future__ import annotations

import os

import pytest

from harness.cases import case as cases
from harness.checks import drive as runner
from harness.checks import run_check
from harness.contract import Subject
from harness.defects import CORRECT, DEFECTS, Kill
from harness.results.finding import NAMES, Finding, Status
from harness.run import plan


def test_each_defect_has_a_name_says_what_it_does_and_who_must_see_it() -> None:
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)
    for defect in DEFECTS:
        assert defect.what
        assert defect.caught_by
        assert set(defect.caught_by) <= set(NAMES)


def test_each_check_is_the_one_that_must_see_some_defect() -> None:
    assert {check for defect in DEFECTS for check in defect.caught_by} == set(NAMES)


def test_a_check_that_misses_its_defect_is_named() -> None:
    defect = next(d for d in DEFECTS if d.name == "defect.StaleAfterReset")
    blind = Kill(defect, {"values": (2, 9), "reset": (0, 4)})
    assert (blind.caught_by, blind.missed_by) == (["values"], ["reset"])


def _bad(subject: type[Subject], names: set[str] | None) -> list[tuple[str, str, Finding]]:
    out = []
    for check, case in plan.items(subject, models=names):
        finding = run_check(subject, check, case)
        if finding.status not in (Status.PASS, Status.NOT_CLAIMED):
            out.append((check, case.id, finding))
    return out


@pytest.mark.parametrize("subject", CORRECT, ids=lambda s: s.name)
def test_correct_subjects_pass_everything(subject: type[Subject]) -> None:
    assert not _bad(subject, None)


#: Sets of inputs: a few in every run of the tests, INPUT_SETS=100 for many.
INPUT_SETS = int(os.environ.get("INPUT_SETS", "3"))


@pytest.mark.parametrize("salt", range(INPUT_SETS))
def test_no_false_alarm_on_other_sets_of_inputs(salt: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights, tokens and inputs each time, to show a bound that only fits one set."""
    real = cases.stable_seed
    for module in (cases, runner):
        monkeypatch.setattr(module, "stable_seed", lambda text: real(f"{salt}:{text}"))
    for subject in CORRECT:
        assert not _bad(subject, {"gemma4-26b", "llama3-sink2"})


def test_what_is_wrong_before_any_misuse_is_said_to_be() -> None:
    """A reader may start at the last line of the table, where a refusal would mislead."""
    subject = next(d.subject for d in DEFECTS if d.name == "defect.WindowMinusOne")
    finding = run_check(subject, "refusal", cases.parse("mistral/chunk-4/float32/b3"))
    assert "wrong from position 7, before past max_context at 48: see values" in finding.message


@pytest.mark.parametrize(
    "name", ["mistral/prefill-3w+5/float32/b1", "mistral/prefill-w/float32/b3"]
)
def test_refusals_of_a_single_feed_are_judged(name: str) -> None:
    """Nothing is fed before the misuse, and the case may be shorter than a feed past its end."""
    case = cases.parse(name)
    for subject in CORRECT:
        assert run_check(subject, "refusal", case).status is Status.PASS
    wrong = next(d.subject for d in DEFECTS if d.name == "defect.WindowMinusOne")
    finding = run_check(wrong, "refusal", case)
    assert finding.status is Status.FAIL
    assert "wrong from position 7" in finding.message
