"""The closed list of kinds: every failure has one, and none of them is dead."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from planted import ATTENTION, CACHE, cache, decoder, defect
from torch import Tensor

from harness.cases.case import parse
from harness.checks import bounds, run_check
from harness.contract import CacheShape
from harness.defects.base import Trimmed
from harness.defects.blunt import BLUNTS
from harness.law import Layer
from harness.reference import tolerance
from harness.reference.cache_decoder import CacheDecoder
from harness.results import ended
from harness.results.finding import Finding, Kind, Status
from harness.results.record import Origin, finish, planned, start
from harness.run.job import LOAD, Job

HARNESS = Path(__file__).parents[3] / "harness"

CHUNKS = "mistral/chunk-4/float32/b1"
BATCH = "mistral/chunk-4/float32/b3"
DECODE = "mistral/decode-3wraps/float32/b1"
PREFILL = "mistral/prefill-3w+5/float32/b1"
BYTES = "mistral/bytes-prefill-50w/float32/b1"
HALF = "mistral/bytes-prefill-50w/float16/b1"
REWIND = "mistral/rewind-3-of-long/float32/b1"
RESET = "mistral/reset-then-chunks/float32/b1"


# --- Planted subjects unlike any in harness.defects.


class Nan(Trimmed):
    """Every value is NaN once the window is full."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        return keys, values * torch.nan if self.length > 8 else values, mask


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


# --- NaN is reported as NaN wherever an answer is compared.


class NanGradient(ATTENTION):
    """Right forward; its gradients are NaN."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer)
        if out.requires_grad:
            out.register_hook(lambda gradient: gradient * torch.nan)
        return out


class NanLogits(CacheDecoder):
    """Overflows from position 9 on."""

    def feed(self, tokens: Tensor) -> Tensor:
        start, logits = self.length, super().feed(tokens)
        late = torch.arange(start, self.length) >= 9
        return torch.where(late[None, :, None], torch.inf, logits)


@pytest.mark.parametrize(
    ("subject", "check", "case", "first_bad"),
    [
        (cache(Nan), "values", CHUNKS, 8),
        (decoder(NanLogits), "values", CHUNKS, 9),
        (NanGradient, "gradients", PREFILL, 0),
    ],
    ids=str,
)
def test_nan_and_infinity_are_no_wrong_values(
    subject: type[Any], check: str, case: str, first_bad: int
) -> None:
    finding = run_check(subject, check, parse(case))
    assert (finding.kind, finding.first_bad) == (Kind.NOT_A_NUMBER, first_bad)
    assert finding.figure == torch.inf
    assert "is NaN or infinite" in finding.message


# --- The list itself.


def test_kinds_are_slugs_with_a_sentence_each() -> None:
    for kind in Kind:
        assert kind.value == kind.name.lower().replace("_", "-")
        assert kind.description.endswith(".")
        assert kind.description[0].isupper()
    assert len({kind.description for kind in Kind}) == len(Kind)


def test_the_first_kind_stays_in_front() -> None:
    finding = Finding("values").fail(Kind.BLIND, "a", 7).fail(Kind.WRONG_VALUES, "b", 3)
    assert (finding.kind, finding.message, finding.first_bad) == (Kind.BLIND, "a; b", 3)


@pytest.mark.parametrize("kind", ["logits: 3 rows off", "wrong_values", "", None])
def test_what_is_no_kind_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid Kind"):
        Finding("values").fail(kind, "a message")


#: First arguments that are computed, as written in the code; mypy checks that they are a `Kind`.
COMPUTED = {"kind", "problem.kind"}


def _is_kind(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_kind(node.body) and _is_kind(node.orelse)
    text = ast.unparse(node)
    return text in COMPUTED or text in {f"Kind.{kind.name}" for kind in Kind}


def _fail_calls() -> list[tuple[str, ast.Call]]:
    return [
        (f"{path.relative_to(HARNESS)}:{node.lineno}", node)
        for path in sorted(HARNESS.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "fail"
        and ast.unparse(node.func.value) != "pytest"
    ]


def test_every_failure_names_its_kind() -> None:
    calls = _fail_calls()
    assert len(calls) > 25
    unnamed = [where for where, call in calls if not (call.args and _is_kind(call.args[0]))]
    assert not unnamed


def test_every_kind_is_named_somewhere() -> None:
    """A kind that no code uses is dead."""
    named = {
        node.attr
        for path in HARNESS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Kind"
    }
    assert named == {kind.name for kind in Kind}
