"""Every planted defect is caught, every correct subject passes, and no alarm is false."""

from __future__ import annotations

import pytest

from harness.cases import case as cases
from harness.checks import drive as runner
from harness.checks import run_check
from harness.contract import Subject
from harness.defects import CORRECT, DEFECTS, Defect, kill
from harness.results.finding import Finding, Status
from harness.run import plan

#: Where a check is the one that must see a defect: what nothing else would show.
MUST_CATCH = {
    "defect.WindowPlusOne": {"visibility", "values"},
    "defect.WindowMinusOne": {"visibility", "values"},
    "defect.SinkDropped": {"visibility", "values"},
    "defect.SinkPlusOne": {"visibility", "values"},
    "defect.SinkMinusOne": {"visibility", "values"},
    "defect.OverwrittenBeforeRead": {"visibility", "values"},
    "defect.StaleAfterReset": {"reset"},
    "defect.KeysPermuted": {"values"},
    "defect.FutureInChunk": {"visibility", "values"},
    "defect.RopeWrapped": {"values"},
    "defect.WrongLayerFull": {"values"},
    "defect.BatchRowsMixed": {"purity"},
    "defect.SilentHalfStorage": {"values", "cache_bytes"},
    "defect.StoredInFloat32": {"cache_bytes"},
    "defect.LyingNbytes": {"cache_bytes"},
    "defect.RetainedPrefill": {"cache_bytes"},
    "defect.GrowsPastWindow": {"cache_bytes"},
    "defect.InputModified": {"purity"},
    "defect.WrongAtRingMultiples": {"visibility", "values"},
    "defect.WrongFromThirdWrap": {"visibility", "values"},
    "defect.RewindForgetsNothing": {"rewind"},
    "defect.RewindPastEviction": {"rewind"},
    "defect.HeadsSwapped": {"values"},
    "defect.OneCorruptHead": {"values"},
    "defect.MaskNone": {"visibility", "values", "cache_bytes"},
    "defect.GradientStopped": {"gradients"},
    "defect.AcceptsAnything": {"refusal"},
    "defect.RefusalLeavesMess": {"refusal"},
    "defect.NotDeterministic": {"purity"},
    "defect.BigChunkRows": {"values"},
    "defect.SecondPrompt": {"visibility", "values"},
    "defect.ChunkBetween": {"visibility", "values"},
    "defect.RewindThenChunk": {"rewind"},
    "defect.RefusedRewindForgets": {"rewind"},
    "defect.SecondReset": {"reset"},
    "defect.ChecksKeysAlone": {"refusal"},
    "defect.SharedPool": {"purity"},
    "defect.KeepsTheCallersTensor": {"purity"},
    "defect.KeysScaledInPlace": {"purity"},
    "defect.LaterBatchRows": {"visibility", "values"},
    "defect.SinkAsWide": {"visibility", "values"},
    "defect.WideWindowsRoundUp": {"values"},
    "defect.HalfWeights": {"values"},
    "defect.GroupsOfTwo": {"values"},
    "defect.ScaleOf64": {"values"},
    "defect.WidthCutToTiles": {"values"},
    "defect.GradientOfAPrefillAlone": {"gradients"},
    "defect.OffOnceExported": {"export"},
    "defect.SpecializedOnOneLength": {"export"},
}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.name)
def test_each_defect_is_caught(defect: Defect) -> None:
    result = kill(defect)
    assert result.caught_by, f"{defect.name} ({defect.what}) passes every check"
    missed = MUST_CATCH.get(defect.name, set()) - set(result.caught_by)
    assert not missed, f"{defect.name} is caught by {result.caught_by}, not by {sorted(missed)}"


def test_the_table_names_defects_that_exist_and_are_described() -> None:
    assert set(MUST_CATCH) <= {d.name for d in DEFECTS}
    assert len({d.name for d in DEFECTS}) == len(DEFECTS)
    assert all(d.what for d in DEFECTS)


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


@pytest.mark.parametrize("salt", range(10))
def test_no_false_alarm_on_ten_sets_of_inputs(salt: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights, tokens and inputs each time: a bound that fits one set only would show."""
    real = cases.stable_seed
    for module in (cases, runner):
        monkeypatch.setattr(module, "stable_seed", lambda text: real(f"{salt}:{text}"))
    for subject in CORRECT:
        assert not _bad(subject, {"gemma4-26b", "llama3-sink2"})


def test_what_is_wrong_before_any_misuse_is_said_to_be() -> None:
    """The table may be read from its last line, and a refusal is not where to look."""
    subject = next(d.subject for d in DEFECTS if d.name == "defect.WindowMinusOne")
    finding = run_check(subject, "refusal", cases.parse("mistral/chunk-4/float32/b3"))
    assert "wrong from position 7, before past max_context at 48: see values" in finding.message


@pytest.mark.parametrize(
    "name", ["mistral/prefill-3w+5/float32/b1", "mistral/prefill-w/float32/b3"]
)
def test_refusals_of_a_single_feed_are_judged(name: str) -> None:
    """Nothing is fed before the misuse, and the whole case may be shorter than one beyond it."""
    case = cases.parse(name)
    for subject in CORRECT:
        assert run_check(subject, "refusal", case).status is Status.PASS
    wrong = next(d.subject for d in DEFECTS if d.name == "defect.WindowMinusOne")
    finding = run_check(wrong, "refusal", case)
    assert finding.status is Status.FAIL
    assert "wrong from position 7" in finding.message
