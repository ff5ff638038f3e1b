"""Planted defects, and the run that shows which check catches each.

A defect is a subject: a correct one with one small patch.  Every one must be broken by some check,
or the suite is blind to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from harness.checks import run_check
from harness.contract import Subject
from harness.defects import caches, decoders, exported, geometry, operations, review
from harness.defects.base import DecoderSubjectOfTrimmed, DenseAttention, Trimmed, TrimmedSubject
from harness.results.finding import Status
from harness.run import plan


@dataclass(frozen=True)
class Defect:
    """A defective subject, what it does, and the models on which it shows.

    caught_by: the checks that must break on it, for what each of them is there to see.  Others
    may break as well.
    """

    name: str
    subject: type[Subject]
    what: str
    caught_by: tuple[str, ...]
    models: tuple[str, ...]


@dataclass
class Kill:
    """Which checks a defect breaks: check -> (cases broken, cases run)."""

    defect: Defect
    checks: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def caught_by(self) -> list[str]:
        """The checks that broke."""
        return [check for check, (broken, _) in self.checks.items() if broken]

    @property
    def missed_by(self) -> list[str]:
        """The checks that were to break, and did not."""
        return [check for check in self.defect.caught_by if check not in self.caught_by]


def _doc(patch: type[object]) -> str:
    return " ".join((patch.__doc__ or "").split())


def _cache(patch: type[Trimmed], caught_by: tuple[str, ...], *models: str) -> Defect:
    name = f"defect.{patch.__name__}"
    subject = type(patch.__name__, (TrimmedSubject,), {"name": name, "cache": patch})
    return Defect(name, subject, _doc(patch), caught_by, models or ("mistral",))


def _decoder(
    patch: type[decoders.PatchedDecoder], caught_by: tuple[str, ...], *models: str
) -> Defect:
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
    _cache(caches.WindowPlusOne, ("visibility", "values")),
    _cache(caches.WindowMinusOne, ("visibility", "values")),
    _cache(caches.SinkDropped, ("visibility", "values"), "llama3-sink2"),
    _cache(caches.SinkPlusOne, ("visibility", "values"), "llama3-sink2"),
    _cache(caches.SinkMinusOne, ("visibility", "values"), "llama3-sink2"),
    _cache(caches.OverwrittenBeforeRead, ("visibility", "values")),
    _cache(caches.StaleAfterReset, ("reset",)),
    _cache(caches.KeysPermuted, ("values",)),
    _cache(caches.FutureInChunk, ("visibility", "values")),
    _cache(caches.ChunkMaskNotPerRow, ("visibility", "values")),
    _cache(caches.PrefillFullyCausal, ("visibility", "values")),
    _cache(caches.MaskNone, ("visibility", "values", "cache_bytes")),
    _cache(caches.BatchRowsMixed, ("purity",)),
    _cache(caches.SilentHalfStorage, ("values", "cache_bytes")),
    _cache(caches.StoredInFloat32, ("cache_bytes",)),
    _cache(caches.LyingNbytes, ("cache_bytes",)),
    _cache(caches.RetainedPrefill, ("cache_bytes",), "mistral"),
    _cache(caches.GrowsPastWindow, ("cache_bytes", "peak_bytes")),
    _cache(caches.InputModified, ("purity",)),
    _cache(caches.WrongAtRingMultiples, ("visibility", "values")),
    _cache(caches.WrongFromThirdWrap, ("visibility", "values")),
    _cache(caches.RewindForgetsNothing, ("rewind",)),
    _cache(caches.RewindPastEviction, ("rewind",)),
    _cache(caches.HeadsSwapped, ("values",)),
    _cache(caches.OneCorruptHead, ("values",)),
    _cache(caches.ModuloBeforeFull, ("values",), "mistral"),
    _cache(caches.DuplicateIndices, ("visibility", "values")),
    _cache(caches.KeyReturnedTwice, ("visibility", "values")),
    _cache(caches.PadStored, ("visibility", "values")),
    _cache(caches.NotDeterministic, ("purity",)),
    _cache(caches.AcceptsAnything, ("refusal",)),
    _cache(caches.RefusalLeavesMess, ("refusal",)),
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
    _cache(review.ChecksKeysAlone, ("refusal",)),
    _cache(review.SharedPool, ("purity",)),
    _operation(review.KeysScaledInPlace, ("purity",)),
    _operation(review.LaterBatchRows, ("visibility", "values")),
    _cache(review.SinkAsWide, ("visibility", "values"), "llama3-sink8"),
    _cache(review.KeepsTheCallersTensor, ("purity",), "llama3"),
    _cache(review.RewindThenChunk, ("rewind",), "llama3"),
    _operation(review.WideWindowsRoundUp, ("values",), "mistral-w64"),
    _exported(exported.OffOnceExported, ("export",)),
    _exported(exported.SpecializedOnOneLength, ("export",)),
)

#: The subjects that the defects patch; these must pass everything.
CORRECT: tuple[type[Subject], ...] = (TrimmedSubject, DecoderSubjectOfTrimmed, DenseAttention)


def kill(defect: Defect) -> Kill:
    """Run a defect through the plan of its models and count what breaks."""
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
