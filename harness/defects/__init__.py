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
    """A defective subject, what it does, and the models on which it shows."""

    name: str
    subject: type[Subject]
    what: str
    models: tuple[str, ...]


@dataclass
class Kill:
    """Which checks a defect breaks: check -> (cases broken, cases run)."""

    defect: Defect
    checks: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def caught_by(self) -> list[str]:
        return [check for check, (broken, _) in self.checks.items() if broken]


def _doc(patch: type[object]) -> str:
    return " ".join((patch.__doc__ or "").split())


def _cache(patch: type[Trimmed], *models: str) -> Defect:
    name = f"defect.{patch.__name__}"
    subject = type(patch.__name__, (TrimmedSubject,), {"name": name, "cache": patch})
    return Defect(name, subject, _doc(patch), models or ("mistral",))


def _decoder(patch: type[decoders.PatchedDecoder], *models: str) -> Defect:
    name = f"defect.{patch.__name__}"
    body = {"name": name, "decoder": patch}
    subject = type(patch.__name__, (DecoderSubjectOfTrimmed,), body)
    return Defect(name, subject, _doc(patch), models or ("mistral",))


def _operation(patch: type[DenseAttention], *models: str) -> Defect:
    name = f"defect.{patch.__name__}"
    subject = type(patch.__name__, (patch,), {"name": name})
    return Defect(name, subject, _doc(patch), models or ("mistral",))


def _exported(patch: type[exported.SinkGraph]) -> Defect:
    name = f"defect.{patch.__name__}"
    subject = type(patch.__name__, (patch,), {"name": name})
    return Defect(name, subject, _doc(patch), ("mistral",))


DEFECTS: tuple[Defect, ...] = (
    _cache(caches.WindowPlusOne),
    _cache(caches.WindowMinusOne),
    _cache(caches.SinkDropped, "llama3-sink2"),
    _cache(caches.SinkPlusOne, "llama3-sink2"),
    _cache(caches.SinkMinusOne, "llama3-sink2"),
    _cache(caches.OverwrittenBeforeRead),
    _cache(caches.StaleAfterReset),
    _cache(caches.KeysPermuted),
    _cache(caches.FutureInChunk),
    _cache(caches.ChunkMaskNotPerRow),
    _cache(caches.PrefillFullyCausal),
    _cache(caches.MaskNone),
    _cache(caches.BatchRowsMixed),
    _cache(caches.SilentHalfStorage),
    _cache(caches.StoredInFloat32),
    _cache(caches.LyingNbytes),
    _cache(caches.RetainedPrefill, "mistral"),
    _cache(caches.GrowsPastWindow),
    _cache(caches.InputModified),
    _cache(caches.WrongAtRingMultiples),
    _cache(caches.WrongFromThirdWrap),
    _cache(caches.RewindForgetsNothing),
    _cache(caches.RewindPastEviction),
    _cache(caches.HeadsSwapped),
    _cache(caches.OneCorruptHead),
    _cache(caches.ModuloBeforeFull, "mistral"),
    _cache(caches.DuplicateIndices),
    _cache(caches.KeyReturnedTwice),
    _cache(caches.PadStored),
    _cache(caches.NotDeterministic),
    _cache(caches.AcceptsAnything),
    _cache(caches.RefusalLeavesMess),
    _decoder(decoders.RopeWrapped, "llama3-sink2", "mistral"),
    _decoder(decoders.PositionsStall),
    _decoder(decoders.RopeOfChunkStartOnly),
    _decoder(decoders.WrongSharedSource, "gemma4-e2b"),
    _decoder(decoders.WrongLayerFull, "gemma3"),
    _decoder(decoders.AllLayersFull, "gemma3"),
    _decoder(decoders.HalfWeights),
    *(
        _operation(patch)
        for patch in (
            operations.BothSides,
            operations.BandIgnored,
            operations.DecodeAsPrefill,
            operations.GroupsInterleaved,
            operations.ScaleTwice,
            operations.CorruptCorner,
            operations.GradientStopped,
            operations.HalfInside,
            operations.FirstTileWrong,
            operations.QueriesScaledInPlace,
            operations.ZerosForMasked,
            geometry.GroupsOfTwo,
            geometry.ScaleOf64,
            geometry.WidthCutToTiles,
            geometry.GradientOfAPrefillAlone,
        )
    ),
    *(_cache(patch) for patch in review.CACHES),
    *(_operation(patch) for patch in review.OPERATIONS),
    _cache(review.SinkAsWide, "llama3-sink8"),
    _cache(review.KeepsTheCallersTensor, "llama3"),
    _cache(review.RewindThenChunk, "llama3"),
    _operation(review.WideWindowsRoundUp, "mistral-w64"),
    _exported(exported.OffOnceExported),
    _exported(exported.SpecializedOnOneLength),
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
