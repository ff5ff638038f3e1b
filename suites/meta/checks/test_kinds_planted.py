"""A subject is planted for every kind of failure, and found as that kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from kind_cases import BATCH, BYTES, CHUNKS, DECODE, HALF, PREFILL, RESET, REWIND, Nan
from planted import ATTENTION, CACHE, cache, defect
from torch import Tensor

from harness.cases.case import parse
from harness.checks import bounds, run_check
from harness.contract import CacheShape
from harness.defects.base import Trimmed
from harness.defects.blunt import BLUNTS
from harness.law import Layer
from harness.reference import tolerance
from harness.results import ended
from harness.results.finding import Kind, Status
from harness.results.record import Origin, finish, planned, start
from harness.run.job import LOAD, Job


class GrowsSlowly(Trimmed):
    """Evicts one key too few in every second decode step: within the limit, but growing."""

    steps = 0

    def needed(self, columns: Tensor) -> Tensor:
        self.steps += 1
        return columns > self.length - (self.layer.window or 0) - self.steps // 2


class Global(Trimmed):
    """Leaves a view of one column of each prompt in a global."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        KEPT.append(k[..., :1])
        return super().update(k, v)


KEPT: list[Tensor] = []


class WrongPastContext(Trimmed):
    """Forgets everything but the newest key past max_context."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        late = (queries >= self.shape.max_context)[:, None]
        return super().mask(queries, columns) & ~(late & (columns[None, :] < queries[:, None]))


class Wordless(Trimmed):
    """Refuses with an error that has no message."""

    def check(self, k: Tensor, v: Tensor) -> None:
        try:
            super().check(k, v)
        except ValueError:
            raise ValueError from None


class Warmer(Trimmed):
    """Each update of a process is a little warmer than the last."""

    updates = 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        Warmer.updates += 1
        return keys, values * (1 + 2.0**-20 * self.updates), mask


class Pair(Trimmed):
    """Returns no mask."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return super().update(k, v)[:2]  # type: ignore[return-value]


class Raises(Trimmed):
    """Raises in its second update."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.length:
            raise RuntimeError("no cache today")
        return super().update(k, v)


class Huge(Trimmed):
    """Asks for more memory than any machine has."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        super().__init__(layer, shape)
        self.spare = torch.empty(1 << 60)


class ShiftedWindow(Trimmed):
    """Loses the newest key and keeps one that is too old."""

    def needed(self, columns: Tensor) -> Tensor:
        return torch.ones_like(columns, dtype=torch.bool)

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        return super().mask((queries - 1).clamp(min=0), columns)


class NeverRewinds(Trimmed):
    """Refuses every rewind, and keeps every key."""

    def needed(self, columns: Tensor) -> Tensor:
        return torch.ones_like(columns, dtype=torch.bool)

    def rewind(self, length: int) -> None:
        raise ValueError(f"cannot rewind to {length}")


FORGETS = next(b.subject for b in BLUNTS if (b.body, b.mistake) == ("cache", "forgets"))
PROFILED = cache(Trimmed, profile=lambda self, layer, shape: 1)  # noqa: ARG005 - the contract's
CLAIMS_LINEAR = type("ClaimsLinear", (ATTENTION,), {"linear_memory": True})

#: The kind, and a subject, check and case that must end as it.
PLANTED: dict[Kind, tuple[type[Any], str, str]] = {
    Kind.SEES_TOO_MANY: (defect("WindowPlusOne"), "visibility", CHUNKS),
    Kind.LOST_KEYS: (defect("WindowMinusOne"), "visibility", CHUNKS),
    Kind.SEES_THE_FUTURE: (defect("FutureInChunk"), "visibility", CHUNKS),
    Kind.WRONG_KEYS: (cache(ShiftedWindow), "visibility", DECODE),
    Kind.NOT_UNIFORM: (defect("KeyReturnedTwice"), "visibility", CHUNKS),
    Kind.WRONG_VALUES: (defect("HeadsSwapped"), "values", CHUNKS),
    Kind.NOT_A_NUMBER: (cache(Nan), "values", CHUNKS),
    Kind.DENSE_WRONG: (defect("HalfWeights"), "values", CHUNKS),
    Kind.BYTES_CLAIMED_DIFFER: (defect("LyingNbytes"), "cache_bytes", BYTES),
    Kind.BYTES_LEAKED: (cache(Global), "cache_bytes", BYTES),
    Kind.BYTES_TOO_FEW: (defect("SilentHalfStorage"), "cache_bytes", BYTES),
    Kind.BYTES_TOO_MANY: (defect("GrowsPastWindow"), "cache_bytes", BYTES),
    Kind.BYTES_GROW: (cache(GrowsSlowly), "cache_bytes", BYTES),
    Kind.BYTES_DIFFER: (PROFILED, "cache_bytes", BYTES),
    Kind.STORED_TOO_WIDE: (defect("StoredInFloat32"), "cache_bytes", HALF),
    Kind.NOT_STEADY: (defect("GrowsPastWindow"), "peak_bytes", DECODE),
    Kind.NOT_LINEAR: (CLAIMS_LINEAR, "peak_bytes", PREFILL),
    Kind.NOTHING_TO_COMPARE: (FORGETS, "purity", CHUNKS),
    Kind.REFUSES_WHAT_IT_HOLDS: (cache(NeverRewinds), "rewind", REWIND),
    Kind.RESET_DIFFERS: (defect("StaleAfterReset"), "reset", RESET),
    Kind.STATE_CHANGED: (defect("RefusalLeavesMess"), "refusal", CHUNKS),
    Kind.BAD_INPUT_ACCEPTED: (defect("AcceptsAnything"), "refusal", CHUNKS),
    Kind.ACCEPTED_AND_WRONG: (cache(WrongPastContext), "refusal", CHUNKS),
    Kind.ERROR_WITHOUT_MESSAGE: (cache(Wordless), "refusal", CHUNKS),
    Kind.INPUT_CHANGED: (defect("InputModified"), "purity", CHUNKS),
    Kind.INPUT_KEPT: (
        defect("KeepsTheCallersTensor"),
        "purity",
        "llama3/chunk-4/float32/b1",
    ),
    Kind.NOT_REPEATABLE: (cache(Warmer), "purity", CHUNKS),
    Kind.INSTANCES_MIX: (defect("SharedPool"), "purity", CHUNKS),
    Kind.ROWS_MIX: (defect("BatchRowsMixed"), "purity", BATCH),
    Kind.CONTRACT_BROKEN: (cache(Pair), "values", CHUNKS),
    Kind.RAISED: (cache(Raises), "values", CHUNKS),
    Kind.OUT_OF_MEMORY: (cache(Huge), "values", CHUNKS),
}

#: Kinds that no check returns: what sets them, tested elsewhere with real processes.
SAID: dict[Kind, Callable[[], str]] = {
    Kind.HUNG: lambda: ended.hung(60).kind,
    Kind.DIED: lambda: ended.died().kind,
    Kind.MISSING: lambda: planned(Origin("ours", "ours"), "r1", "a", "values").kind,
    Kind.NOT_LOADED: lambda: (
        Job(Origin("a", "a"), LOAD, status="error", message="?").start("r1", "a").kind
    ),
}

#: Kinds that need more than a subject; each has the test of its name below.
BY_HAND = {Kind.BLIND}


def test_every_kind_is_planted() -> None:
    assert {*PLANTED, *SAID, *BY_HAND} == set(Kind)


@pytest.mark.parametrize("kind", PLANTED, ids=str)
def test_a_planted_subject_is_found_as_its_kind(kind: Kind) -> None:
    subject, check, name = PLANTED[kind]
    case = parse(name)
    finding = run_check(subject, check, case)
    errors = {Kind.RAISED, Kind.OUT_OF_MEMORY}
    assert finding.status is (Status.ERROR if kind in errors else Status.FAIL), finding.message
    assert finding.kind is kind, finding.message
    record = finish(start(Origin("a", "a"), "r1", "i", check, case), finding, 0.1)
    assert record.kind == str(kind)


@pytest.mark.parametrize("kind", SAID, ids=str)
def test_what_ends_without_an_answer_has_its_kind(kind: Kind) -> None:
    assert SAID[kind]() == kind


def test_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    real = tolerance.row_bound
    monkeypatch.setattr(tolerance, "row_bound", lambda *args: 1e5 * real(*args))
    bounds.forget()
    finding = run_check(CACHE, "values", parse(CHUNKS))
    bounds.forget()
    assert (finding.status, finding.kind) == (Status.FAIL, Kind.BLIND)


def test_what_passes_or_is_not_claimed_has_no_kind() -> None:
    passed = run_check(CACHE, "values", parse(CHUNKS))
    assert (passed.status, passed.kind) == (Status.PASS, None)
    record = finish(start(Origin("a", "a"), "r1", "i", "values", parse(CHUNKS)), passed, 0.1)
    assert record.kind == ""
    unclaimed = run_check(ATTENTION, "reset", parse(RESET))
    assert (unclaimed.status, unclaimed.kind) == (Status.NOT_CLAIMED, None)
