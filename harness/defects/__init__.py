"""Planted defects, and the run that shows which check catches each.

A defect is a correct subject with one small patch.  Some check must fail on every one of them;
otherwise the suite cannot see that kind of mistake.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.checks import run_check
from harness.contract import Subject
from harness.defects import (
    cache_contents,
    cache_masks,
    decoders,
    exported,
    geometry,
    operations,
    refusals,
    reports,
    review,
    rewinds,
)
from harness.defects.base import DecoderSubjectOfTrimmed, DenseAttention, Trimmed, TrimmedSubject
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Status
from harness.run import plan


@dataclass(frozen=True)
class Defect:
    """A defective subject, what it does, and the models that show it.

    caught_by: the checks that must fail on it, because such a defect is what they are there for.
    Others may fail as well.
    """

    name: str
    subject: type[Subject]
    what: str
    caught_by: tuple[str, ...]
    models: tuple[str, ...]


@dataclass
class Kill:
    """Which checks fail on a defect: check -> (cases that fail, cases run)."""

    defect: Defect
    checks: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def caught_by(self) -> list[str]:
        """The checks that failed."""
        return [check for check, (broken, _) in self.checks.items() if broken]

    @property
    def missed_by(self) -> list[str]:
        """The checks that should have failed, and did not."""
        return [check for check in self.defect.caught_by if check not in self.caught_by]


def _doc(patch: type[object]) -> str:
    return " ".join((patch.__doc__ or "").split())


def _cache(patch: type[Trimmed], caught_by: tuple[str, ...], *models: str) -> Defect:
    name = f"defect.{patch.__name__}"
    subject = type(patch.__name__, (TrimmedSubject,), {"name": name, "cache": patch})
    return Defect(name, subject, _doc(patch), caught_by, models or ("mistral",))


def _decoder(patch: type[CacheDecoder], caught_by: tuple[str, ...], *models: str) -> Defect:
    name = f"defect.{patch.__name__}"
    body = {"name": name, "decoder": patch}
    subject = type(patch.__name__, (DecoderSubjectOfTrimmed,), body)
    return Defect(name, subject, _doc(patch), caught_by, models or ("mistral",))


def _operation(patch: type[DenseAttention], caught_by: tuple[str, ...], *models: str) -> Defect:
    name = f"defect.{patch.__name__}"
    subject = type(patch.__name__, (patch,), {"name": name})
    return Defect(name, subject, _doc(patch), caught_by, models or ("mistral",))


def _exported(patch: type[exported.SinkGraph], caught_by: tuple[str, ...]) -> Defect:
    name = f"defect.{patch.__name__}"
    subject = type(patch.__name__, (patch,), {"name": name})
    return Defect(name, subject, _doc(patch), caught_by, ("mistral",))


DEFECTS: tuple[Defect, ...] = (
    _cache(cache_masks.WindowPlusOne, ("visibility", "values")),
    _cache(cache_masks.WindowMinusOne, ("visibility", "values")),
    _cache(cache_masks.SinkDropped, ("visibility", "values"), "llama3-sink2"),
    _cache(cache_masks.SinkPlusOne, ("visibility", "values"), "llama3-sink2"),
    _cache(cache_masks.SinkMinusOne, ("visibility", "values"), "llama3-sink2"),
    _cache(cache_masks.OverwrittenBeforeRead, ("visibility", "values")),
    _cache(cache_contents.StaleAfterReset, ("reset",)),
    _cache(cache_contents.KeysPermuted, ("values",)),
    _cache(cache_masks.FutureInChunk, ("visibility", "values")),
    _cache(cache_masks.ChunkMaskNotPerRow, ("visibility", "values")),
    _cache(cache_masks.PrefillFullyCausal, ("visibility", "values")),
    _cache(cache_masks.MaskNone, ("visibility", "values", "cache_bytes")),
    _cache(cache_contents.BatchRowsMixed, ("purity",)),
    _cache(cache_contents.SilentHalfStorage, ("values", "cache_bytes")),
    _cache(cache_contents.StoredInFloat32, ("cache_bytes",)),
    _cache(cache_contents.LyingNbytes, ("cache_bytes",)),
    _cache(cache_contents.RetainedPrefill, ("cache_bytes",), "mistral"),
    _cache(cache_contents.GrowsPastWindow, ("cache_bytes", "peak_bytes")),
    _cache(cache_contents.InputModified, ("purity",)),
    _cache(cache_masks.WrongAtRingMultiples, ("visibility", "values")),
    _cache(cache_masks.WrongFromThirdWrap, ("visibility", "values")),
    _cache(cache_contents.RewindForgetsNothing, ("rewind",)),
    _cache(cache_contents.RewindPastEviction, ("rewind",)),
    _cache(cache_contents.HeadsSwapped, ("values",)),
    _cache(cache_contents.OneCorruptHead, ("values",)),
    _cache(cache_contents.ModuloBeforeFull, ("values",), "mistral"),
    _cache(cache_contents.DuplicateIndices, ("visibility", "values")),
    _cache(cache_contents.KeyReturnedTwice, ("visibility", "values")),
    _cache(cache_contents.PadStored, ("visibility", "values")),
    _cache(cache_contents.NotDeterministic, ("purity",)),
    _cache(refusals.AcceptsAnything, ("refusal",)),
    _cache(refusals.RefusalLeavesMess, ("refusal",)),
    _decoder(decoders.RopeWrapped, ("values",), "llama3-sink2", "mistral"),
    _decoder(decoders.PositionsStall, ("values",)),
    _decoder(decoders.RopeOfChunkStartOnly, ("values",)),
    _decoder(decoders.WrongSharedSource, ("values",), "gemma4-e2b"),
    _decoder(decoders.WrongLayerFull, ("values",), "gemma3"),
    _decoder(decoders.AllLayersFull, ("visibility", "values", "cache_bytes"), "gemma3"),
    _decoder(decoders.HalfWeights, ("values",)),
    _operation(operations.BothSides, ("visibility", "values", "gradients")),
    _operation(operations.BandIgnored, ("visibility", "values", "gradients")),
    _operation(operations.DecodeAsPrefill, ("visibility", "values", "gradients")),
    _operation(operations.GroupsInterleaved, ("values", "gradients")),
    _operation(operations.ScaleTwice, ("values", "gradients")),
    _operation(operations.CorruptCorner, ("visibility", "values", "gradients")),
    _operation(operations.GradientStopped, ("gradients",)),
    _operation(operations.HalfInside, ("values", "gradients")),
    _operation(operations.FirstTileWrong, ("visibility", "values", "gradients")),
    _operation(operations.QueriesScaledInPlace, ("purity",)),
    _operation(operations.ZerosForMasked, ("visibility", "values", "gradients")),
    _operation(geometry.GroupsOfTwo, ("values",)),
    _operation(geometry.ScaleOf64, ("values",)),
    _operation(geometry.WidthCutToTiles, ("values",)),
    _operation(geometry.GradientOfAPrefillAlone, ("gradients",)),
    _cache(review.BigChunkRows, ("values",)),
    _cache(review.SecondPrompt, ("visibility", "values")),
    _cache(review.ChunkBetween, ("visibility", "values")),
    _cache(review.RefusedRewindForgets, ("rewind",)),
    _cache(review.SecondReset, ("reset",)),
    _cache(refusals.ChecksKeysAlone, ("refusal",)),
    _cache(review.SharedPool, ("purity",)),
    _operation(review.KeysScaledInPlace, ("purity",)),
    _operation(review.LaterBatchRows, ("visibility", "values")),
    _cache(review.SinkAsWide, ("visibility", "values"), "llama3-sink8"),
    _cache(review.KeepsTheCallersTensor, ("purity",), "llama3"),
    _cache(review.RewindThenChunk, ("rewind",), "llama3"),
    _operation(review.WideWindowsRoundUp, ("values",), "mistral-w64"),
    _cache(refusals.OtherDtypeByBits, ("refusal",)),
    _cache(refusals.OtherDtypeStoredWrong, ("refusal",)),
    _operation(refusals.HalfKeysNotPromoted, ("refusal",)),
    _operation(refusals.HalfKeysSpoilTheScale, ("refusal",)),
    _operation(refusals.RefusalSpoilsTheScale, ("refusal",)),
    _decoder(refusals.TokensWrapAround, ("refusal",)),
    _decoder(refusals.RankOneReversed, ("refusal",)),
    _decoder(refusals.RankOneCountedTwice, ("refusal",)),
    _decoder(refusals.RefusedFeedCounted, ("refusal",)),
    _operation(reports.FiniteMask, ("values",)),
    _operation(reports.EmptySplitsMerged, ("values",)),
    _decoder(reports.RopePositionsInHalf, ("values",)),
    _cache(reports.RefusesHeldRewinds, ("rewind",)),
    _cache(reports.FullBuffer, ("cache_bytes",)),
    _cache(rewinds.RefusedAheadForgets, ("refusal",)),
    _cache(rewinds.RewindToTheEnd, ("rewind",)),
    _cache(rewinds.RewindToNothing, ("rewind",)),
    _cache(rewinds.RewindInHalf, ("rewind",)),
    _cache(rewinds.RewindPast128, ("rewind",), "llama3"),
    _cache(rewinds.ResetAfterRewind, ("rewind",)),
    _decoder(rewinds.DecoderRewindsToTheEnd, ("rewind",)),
    _exported(exported.OffOnceExported, ("export",)),
    _exported(exported.SpecializedOnOneLength, ("export",)),
)

#: The subjects that the defects patch.  They must pass every check.
CORRECT: tuple[type[Subject], ...] = (TrimmedSubject, DecoderSubjectOfTrimmed, DenseAttention)


def kill(defect: Defect) -> Kill:
    """Run a defect through the plan of its models and count what fails."""
    out = Kill(defect)
    for check, case in plan.items(defect.subject, models=defect.models):
        finding = run_check(defect.subject, check, case)
        broken, run = out.checks.get(check, (0, 0))
        is_broken = finding.status in (Status.FAIL, Status.ERROR)
        out.checks[check] = (broken + is_broken, run + (finding.status != Status.NOT_CLAIMED))
    return out


def kills() -> Iterator[Kill]:
    """The kill table, one defect at a time."""
    return (kill(defect) for defect in DEFECTS)
