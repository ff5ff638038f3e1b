"""Measures a subject's whole schedule as one call, with every feed as a step of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.common import device_of, op_shape
from harness.checks.drive import open_decoder, tokens_for
from harness.contract import (
    AttentionSubject,
    CacheShape,
    CacheSubject,
    Decoder,
    LayerCache,
    Subject,
    Unsupported,
)
from harness.memory import Measurement, Step, measure, step
from harness.memory.storage import storage_bytes, tensors_of
from harness.reference import inputs
from harness.reference.cache_decoder import cache_shape, checked_update

#: One warm-up run: it takes every step of the schedule, so what is made lazily then exists.
WARMUP = 1

OPEN = "open"


@dataclass(frozen=True)
class Opened:
    """A decoder after its run, and what it held when it was opened.

    said: the cache bytes that it reported; indices: bytes of all integer and bool tensors that
    were reachable from it.
    """

    decoder: Decoder
    said: int
    indices: int


@dataclass(frozen=True)
class Feed:
    """One feed of a schedule: positions start to start + n, and its bytes."""

    start: int
    n: int
    bytes: Step


def require_cpu(subject: Subject) -> None:
    """Raise Unsupported for a subject on another device: only the CPU's probe tells steps apart."""
    device = device_of(subject)
    if device.type != "cpu":
        raise Unsupported(f"the bytes of single steps are measured on the CPU alone, not {device}")


def feeds(measurement: Measurement[Any], case: Case) -> list[Feed]:
    """Every feed of the schedule, in order."""
    steps = [s for s in measurement.steps if s.name != OPEN]
    spans = case.schedule.spans()
    return [Feed(a, b - a, s) for (a, b), s in zip(spans, steps, strict=True)]


def attention_run(subject: AttentionSubject, case: Case, i: int) -> Measurement[None]:
    """Run layer i's operation at each feed, over all keys so far; its inputs exist beforehand."""
    shape, layer = op_shape(case, i), case.model.layers[i]
    x = inputs.random(case, case.schedule.length, 2 * shape.n_kv_heads, shape.n_kv_heads)
    x = x.to(shape.dtype)

    def run() -> None:
        for a, b in case.schedule.spans():
            q, k, v = x.q[:, :, a:b], x.k[:, :, :b], x.v[:, :, :b]
            with step(f"{a}:{b}"):
                subject.attend(q, k, v, layer)

    return measure(run, warmup=WARMUP)


def cache_run(
    subject: CacheSubject, case: Case, i: int, warmup: int = WARMUP
) -> Measurement[LayerCache]:
    """Make and feed layer i's cache: each step is one update, and its answer is dropped.

    Keys and values are made for each update and dropped after it: a cache that keeps them, or a
    view of them, is charged for all of them.  On CUDA there are no steps.
    """
    device = device_of(subject)
    shape, layer = cache_shape(case, i, device), case.model.layers[i]

    def run() -> LayerCache:
        with step(OPEN):
            cache = subject.new_cache(layer, shape)
        for a, b in case.schedule.spans():
            k, v = _projected(shape, b - a)
            with step(f"{a}:{b}"):
                checked_update(cache, k, v)
            del k, v
        return cache

    return measure(run, warmup=warmup, device=device)


def index_bytes(root: object) -> int:
    """Storage bytes of the reachable tensors that do not hold floating-point numbers."""
    return storage_bytes(t for t in tensors_of(root) if not t.is_floating_point())


def _projected(shape: CacheShape, t: int) -> tuple[Tensor, Tensor]:
    """k, v (B, Hkv, t, D) laid out as a model hands them over: v is a view of a projection."""
    b, h, d = shape.batch, shape.n_kv_heads, shape.head_dim
    k = torch.zeros(b, h, t, d, dtype=shape.dtype, device=shape.device)
    v = torch.zeros(b, t, h, d, dtype=shape.dtype, device=shape.device)
    return k, v.transpose(1, 2)


def decoder_run(subject: Subject, case: Case, warmup: int = WARMUP) -> Measurement[Opened]:
    """Open and feed a decoder: each step is one feed, and its logits are dropped."""
    tokens = tokens_for(case)

    def run() -> Opened:
        with step(OPEN):
            decoder = open_decoder(subject, case)
        opened = Opened(decoder, sum(decoder.cache_bytes()), index_bytes(decoder))
        used = 0
        for a, b in case.schedule.spans():
            new = tokens[:, used : used + b - a]
            used += b - a
            with step(f"{a}:{b}"):
                decoder.feed(new)
        return opened

    return measure(run, warmup=warmup)
