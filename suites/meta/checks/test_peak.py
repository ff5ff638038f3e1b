"""The peak_bytes check and the allocator's view of a cache: planted defects, and by which gate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gate_data import record
from torch import Tensor

from harness import checks
from harness.cases.case import Case, parse
from harness.checks.allocated import allocation_problems
from harness.checks.peak import peak_bytes
from harness.contract import Unsupported
from harness.defects.base import DecoderSubjectOfTrimmed, DenseAttention, Trimmed, TrimmedSubject
from harness.defects.cache_contents import (
    GrowsPastWindow,
    LyingNbytes,
    RetainedPrefill,
    StoredInFloat32,
)
from harness.gate.baselines import Baselines
from harness.law import Layer
from harness.memory import canary, events, exponent
from harness.reference.cache_decoder import CacheDecoder
from harness.reference.oracle import attention
from harness.results.finding import Kind, Status
from harness.results.record import to_frame

PREFILL = parse("mistral/prefill-3w+5/float32/b1")  # 29 tokens, window 8, 2 kv heads of width 8
HALF = PREFILL.with_dtype("float16")
DECODE = parse("mistral/decode-3wraps/float32/b1")
SLOT = 2 * 2 * 8 * 4  # key and value, heads, width, bytes of float32


def of(cache: type[Trimmed]) -> TrimmedSubject:
    subject = TrimmedSubject()
    subject.cache = cache
    return subject


# --- Attention: claims of linear memory.


class Banded:
    """A window in blocks of 64 queries, each over the keys that it can see."""

    name = "banded"
    schemes = frozenset({"uniform", "full"})
    linear_memory = True

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        n, out = q.shape[2], torch.empty_like(q)
        for start in range(0, n, 64):
            rows = torch.arange(start, min(start + 64, n))
            first = 0 if layer.window is None else max(0, start - layer.window + 1)
            keys = torch.arange(first, int(rows[-1]) + 1)
            mask = layer.between(rows, keys)
            out[:, :, start : start + 64] = attention(
                q[:, :, start : start + 64], k[:, :, first : keys[-1] + 1],
                v[:, :, first : keys[-1] + 1], mask)  # fmt: skip
        return out


class BandedWithMask(Banded):
    """Makes a mask of one byte for each query and key, and uses nothing of it."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        out = super().attend(q, k, v, layer)
        del mask
        return out


def test_a_banded_path_is_linear() -> None:
    finding = peak_bytes(Banded(), PREFILL)
    assert finding.status is Status.PASS
    assert "exponent" in finding.message


def test_a_byte_mask_in_a_banded_path_is_caught_by_the_second_difference() -> None:
    finding = peak_bytes(BandedWithMask(), PREFILL)
    assert finding.status is Status.FAIL
    assert finding.kind is Kind.NOT_LINEAR
    assert "is 2,097,152 bytes" in finding.message  # 2 * 1024 * 1024


def test_the_exponent_alone_would_have_missed_the_mask() -> None:
    """Next to 12 KiB per position, one byte for each of S * S positions still fits O(S)."""
    sizes = (1024, 2048, 3072)
    assert round(exponent(sizes, [12_288 * s + s * s for s in sizes])) == 1


def test_only_bounded_layers_of_those_who_claim_it_are_held_to_it() -> None:
    assert "exponent" not in peak_bytes(DenseAttention(), PREFILL).message
    full = parse("llama3/prefill-3w+5/float32/b1")
    finding = peak_bytes(Banded(), full)
    assert finding.status is Status.PASS
    assert "exponent" not in finding.message


# --- Caches and decoders: what the baselines gate.


class ExtraCopy(Trimmed):
    """Copies what is stored before it adds to it."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spare = self.keys.clone(), self.values.clone()
        answer = super().update(k, v)
        del spare
        return answer


class Float64Temporary(Trimmed):
    """Widens the new keys and values on the way."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wide = k.double(), v.double()
        answer = super().update(k, v)
        del wide
        return answer


def _record(subject: Any, case: Case) -> Any:
    finding = peak_bytes(subject, case)
    assert finding.status is Status.PASS, finding.message
    return record(check="peak_bytes", case=case.id, **finding.bytes)


@pytest.mark.parametrize(
    ("defect", "case", "integer", "excess"),
    [
        # Steady decode holds window - 1 keys; a step adds one, in float64 twice as wide.
        (ExtraCopy, DECODE, "peak_bytes", 7 * SLOT),
        (Float64Temporary, DECODE, "peak_bytes", 2 * SLOT),
        # After the prefill all 29 slots and their positions stay instead of 7.
        (RetainedPrefill, PREFILL, "retained_bytes", (29 - 7) * (SLOT + 8)),
        # 7 slots, of 4 bytes an element instead of 2.
        (StoredInFloat32, HALF, "retained_bytes", 7 * SLOT // 2),
    ],
)
def test_a_planted_defect_drifts_from_the_baseline_by_its_own_bytes(
    defect: type[Trimmed], case: Case, integer: str, excess: int
) -> None:
    baselines = Baselines()
    baselines.update(to_frame([_record(TrimmedSubject(), case)]))
    assert not baselines.compare(to_frame([_record(TrimmedSubject(), case)])).drift
    drift = {
        d.integer: (d.now or 0) - (d.baseline or 0)
        for d in baselines.compare(to_frame([_record(of(defect), case)])).drift
    }
    assert drift[integer] == excess


def test_retained_bytes_are_those_of_the_slots_and_their_positions() -> None:
    finding = peak_bytes(TrimmedSubject(), PREFILL)
    assert finding.bytes["retained_bytes"] == 7 * SLOT + 7 * 8  # positions are int64


def test_growth_past_the_window_needs_no_baseline() -> None:
    finding = peak_bytes(of(GrowsPastWindow), DECODE)
    assert finding.status is Status.FAIL
    assert finding.kind is Kind.NOT_STEADY
    assert finding.first_bad == 35  # the last turn of 2 * 8 among 51 positions


class Growing(CacheDecoder):
    """Keeps its logits."""

    def feed(self, tokens: Tensor) -> Tensor:
        logits = super().feed(tokens)
        self.__dict__.setdefault("kept", []).append(logits)
        return logits


class GrowingSubject(DecoderSubjectOfTrimmed):
    decoder = Growing


def test_a_decoder_that_keeps_its_logits_is_caught() -> None:
    finding = peak_bytes(GrowingSubject(), DECODE)
    assert finding.status is Status.FAIL
    logits = 51 * 64 * 4  # positions, vocabulary, float32
    (problem,) = allocation_problems(GrowingSubject(), DECODE)
    clean = peak_bytes(DecoderSubjectOfTrimmed(), DECODE)
    assert finding.bytes["retained_bytes"] - clean.bytes["retained_bytes"] == logits
    assert problem.kind is Kind.BYTES_CLAIMED_DIFFER


@pytest.mark.parametrize("subject", [TrimmedSubject, DecoderSubjectOfTrimmed, DenseAttention])
def test_a_finding_repeats_to_the_byte(subject: type[Any]) -> None:
    case = parse("gemma3/chunk-w+1/float32/b1")
    first, *others = (peak_bytes(subject(), case) for _ in range(5))
    assert first.status is Status.PASS
    assert all((other.bytes, other.message) == (first.bytes, first.message) for other in others)


def test_schedules_that_reset_are_not_claimed() -> None:
    with pytest.raises(Unsupported):
        peak_bytes(TrimmedSubject(), parse("mistral/reset-then-decode/float32/b1"))


def test_a_broken_probe_is_an_error_and_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canary, "_passed", set())
    monkeypatch.setattr(events, "_read", lambda _: events.Log([], []))
    monkeypatch.setitem(checks.CHECKS, "peak_bytes", peak_bytes)
    finding = checks.run_check(TrimmedSubject, "peak_bytes", PREFILL)
    assert (finding.status, finding.exception) == (Status.ERROR, "ProbeError")
    assert not finding.bytes


# --- The allocator against what a cache reports.

GLOBAL: list[Tensor] = []


class KeptInGlobal(Trimmed):
    """Leaves a view of one column of each prompt in a global."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        GLOBAL.append(k[..., :1])
        return super().update(k, v)


class KeptInClosure(Trimmed):
    """Leaves a view of the last prompt in a closure."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        last = v[:, :, -1:]
        self.peek = lambda: last
        return super().update(k, v)


@pytest.mark.parametrize(
    ("cache", "kind", "problem"),
    [
        # Both keep all 29 keys or values: 29 * 2 * 8 * 4 bytes more than 7 slots and positions.
        (KeptInGlobal, Kind.BYTES_LEAKED, "2,808 bytes stay allocated, 952 of them within reach"),
        (KeptInClosure, Kind.BYTES_CLAIMED_DIFFER, "nbytes() says 896, its storages hold 2,808"),
        (LyingNbytes, Kind.BYTES_CLAIMED_DIFFER, "nbytes() says 448, its storages hold 952"),
    ],
)
def test_the_allocator_tells_what_a_cache_hides(
    cache: type[Trimmed], kind: Kind, problem: str
) -> None:
    GLOBAL.clear()
    (found,) = allocation_problems(of(cache), PREFILL)
    assert found.kind is kind
    assert problem in found.message


@pytest.mark.parametrize("subject", [TrimmedSubject(), DecoderSubjectOfTrimmed()])
@pytest.mark.parametrize("case", ["mistral/bytes-prefill-50w", "gemma3/bytes-chunked-50w"])
def test_honest_caches_have_no_allocation_problems(subject: Any, case: str) -> None:
    assert not list(allocation_problems(subject, parse(f"{case}/float32/b1")))
