"""The device that a subject names is where its caches are made and its inputs lie, in every check.

No accelerator is needed: "cpu:0" computes and is not "cpu", and "meta" holds no numbers, so that a
check ends early there, but every tensor that it handed over was on it or was not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from planted import ATTENTION, DECODER, cache
from torch import Tensor

from harness.cases.case import parse
from harness.checks import CHECKS, run_check
from harness.checks.allocated import unmeasured
from harness.checks.bytes import cache_bytes
from harness.checks.measured import cache_run
from harness.checks.peak import peak_bytes
from harness.checks.refusal.attempts import Misuse
from harness.checks.refusal.beyond import cache_beyond
from harness.checks.refusal.cache import CacheBody
from harness.checks.refusal.operation import OperationBody
from harness.checks.rewind_claims import refused_though_held
from harness.contract import CacheShape, Unsupported
from harness.defects.base import Trimmed, TrimmedSubject
from harness.law import Layer
from harness.memory import ProbeError
from harness.results.finding import Finding, Status

PLAIN = parse("mistral/chunk-4/float32/b1")
PREFILL = parse("mistral/prefill-3w+5/float32/b1")
BYTES = parse("mistral/bytes-prefill-50w/float32/b1")
FAR_BACK = parse("mistral/rewind-far/float32/b1")
#: A case that each check of a cache claims.
OF_CACHES = {
    "visibility": PLAIN,
    "values": PLAIN,
    "cache_bytes": BYTES,
    "peak_bytes": PREFILL,
    "reset": parse("mistral/reset-then-chunks/float32/b1"),
    "rewind": FAR_BACK,
    "refusal": PLAIN,
    "purity": PLAIN,
}
META = torch.device("meta")
LAYER = PLAIN.model.layers[0]


@dataclass
class Seen:
    """Where caches were made, and where the tensors lay that they were handed."""

    made: set[torch.device] = field(default_factory=set)
    handed: set[torch.device] = field(default_factory=set)


def recording(device: str) -> tuple[type[Any], Seen]:
    """A correct cache subject on `device`, and what it has seen.

    It refuses every rewind, and says that it holds nothing.
    """
    seen = Seen()

    class Recording(Trimmed):
        def __init__(self, layer: Layer, shape: CacheShape) -> None:
            seen.made.add(shape.device)
            super().__init__(layer, shape)

        def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            seen.handed |= {k.device, v.device}
            if device == "meta":  # it has nothing to store
                return k, v, torch.ones(k.shape[2], k.shape[2], dtype=torch.bool, device=device)
            return super().update(k, v)

        def rewind(self, length: int) -> None:
            raise ValueError(f"cannot rewind to {length}")

        def first_held(self) -> int:
            return self.shape.max_context

    return cache(Recording, device=device), seen


@pytest.mark.parametrize("check", OF_CACHES)
def test_every_cache_of_every_check_is_made_on_the_device(check: str) -> None:
    subject, seen = recording("cpu:0")
    finding = run_check(subject, check, OF_CACHES[check])
    assert finding.status is Status.PASS, finding.message
    assert seen.made == {torch.device("cpu:0")}


def test_no_check_of_caches_is_left_out() -> None:
    others = {"gradients", "export"}  # of operations, and of graphs
    assert set(OF_CACHES) == set(CHECKS) - others


def _beyond(subject: Any) -> None:
    cache_beyond(Finding("refusal"), subject, PLAIN, 0, LAYER)


def _misuse(subject: Any) -> None:
    k = torch.zeros(1, 2, 1, 64)
    CacheBody(subject, PLAIN, 0, LAYER).start().misuse(Misuse("none", (k, k)))


def _claims(subject: Any) -> None:
    assert list(refused_though_held(subject, FAR_BACK)) == []


@pytest.mark.parametrize("part", [_beyond, _misuse, _claims])
def test_what_a_cache_is_handed_lies_on_the_device(part: Callable[[Any], None]) -> None:
    subject, seen = recording("meta")
    part(subject())
    assert seen.handed == seen.made == {META}


@pytest.mark.parametrize("check", ["visibility", "values", "cache_bytes", "reset", "purity"])
def test_the_first_update_of_a_check_lies_on_the_device(check: str) -> None:
    """It is the only one: nothing comes back from "meta" to be compared."""
    subject, seen = recording("meta")
    assert run_check(subject, check, OF_CACHES[check]).status is Status.ERROR
    assert seen.handed == seen.made == {META}


class Elsewhere(ATTENTION):
    """An operation that notes where its inputs lie, and answers zeros on the CPU."""

    device = "meta"
    seen: set[torch.device]

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        del layer
        self.seen |= {q.device, k.device, v.device}
        return torch.zeros(q.shape, dtype=q.dtype)


@pytest.mark.parametrize(
    ("check", "case"),
    [
        ("visibility", PLAIN),
        ("values", PLAIN),
        ("gradients", PREFILL),
        ("refusal", PLAIN),
    ],
)
def test_what_an_operation_is_handed_lies_on_the_device(check: str, case: Any) -> None:
    subject = type("Subject", (Elsewhere,), {"seen": set()})
    assert run_check(subject, check, case).status is Status.FAIL  # zeros are wrong everywhere
    assert subject.seen == {META}


def test_an_operations_bad_calls_lie_on_the_device() -> None:
    subject: Any = type("Subject", (Elsewhere,), {"seen": set()})()
    body = OperationBody(subject, PLAIN, 0, LAYER)
    body.start().misuse(body.misuses()[0])
    assert subject.seen == {META}


# --- Bytes on another device.


class OnMeta(TrimmedSubject):
    """Caches that say that they are on a device which no allocator here measures."""

    device = "meta"


def test_peaks_are_not_claimed_where_no_probe_sees_the_steps() -> None:
    with pytest.raises(Unsupported, match="measured on the CPU alone, not meta"):
        peak_bytes(OnMeta(), PREFILL)


def test_an_allocator_is_asked_on_the_device_or_not_at_all() -> None:
    told = "bytes that it does not report are not looked for on"
    assert unmeasured(TrimmedSubject()) == ""
    assert unmeasured(type("OnCuda", (TrimmedSubject,), {"device": "cuda:0"})()) == ""
    assert told in unmeasured(OnMeta())
    assert told in unmeasured(type("OnCuda", (DECODER,), {"device": "cuda"})())


def test_bytes_that_were_not_looked_for_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    finding = cache_bytes(TrimmedSubject(), BYTES)
    assert (finding.status, finding.message) == (Status.PASS, "")
    monkeypatch.setattr("harness.checks.bytes.unmeasured", lambda _: "not looked for")
    finding = cache_bytes(TrimmedSubject(), BYTES)
    assert (finding.status, finding.message) == (Status.PASS, "not looked for")


def test_a_cache_on_cuda_is_measured_by_the_cuda_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    subject = type("OnCuda", (TrimmedSubject,), {"device": "cuda:0"})()
    with pytest.raises(ProbeError, match="no CUDA device to measure on, asked for cuda:0"):
        cache_run(subject, BYTES, 0, warmup=0)
