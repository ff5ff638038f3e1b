"""Check: the storage bytes of caches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.schedules import Feed, Schedule, chunks
from harness.checks.allocated import allocation_problems, unmeasured
from harness.checks.common import device_of, stored_dtype
from harness.checks.drive import claim, open_decoder, tokens_for
from harness.contract import (
    AttentionSubject,
    CacheSubject,
    ContractError,
    Decoder,
    Subject,
    Unsupported,
    optional,
)
from harness.memory.storage import storage_bytes, tensors_of
from harness.reference.cache_decoder import CacheDecoder, cache_shape
from harness.results.finding import Finding, Kind, Status

#: Slots that any cache may take: rings are rounded up to the size of a vector or a page.
_FEWEST = 16


@dataclass
class Samples:
    """Bytes per layer: of the empty cache, after the last prompt chunk, after each decode step."""

    fresh: list[int]
    prefilled: list[int]
    decoded: list[list[int]]

    @property
    def steady(self) -> list[int]:
        return self.decoded[-1]


def cache_bytes(subject: Subject, case: Case) -> Finding:
    """Storage bytes per layer are those of the subject's profile and of the law.

    - `nbytes()` of a cache reports what its storages hold;
    - a bounded layer holds at most sink + 2 * window slots, or 16 if that is more (plus the
      longest chunk, where the cache was allocated ahead), after the prefill, after the first
      decode step and in the steady state, and at least the sink + window - 1 that the next query
      needs;
    - a bounded layer does not grow while it decodes;
    - the steady bytes equal the subject's own `profile`, where it has one;
    - after one long prompt, the allocator holds no more than the subject reports (on devices
      without such a measurement the finding says that this was not looked at).
    """
    claim(subject, case)
    if isinstance(subject, AttentionSubject):
        raise Unsupported("a stateless operation holds no cache")
    sizes = [step.n for step in case.schedule.steps if isinstance(step, Feed)]
    if not case.schedule.plain or sizes[-1] != 1 or max(sizes) == 1:
        raise Unsupported("bytes are sampled on a prompt followed by decode steps")
    finding = Finding("cache_bytes")
    decoder = open_decoder(subject, case)
    dtype = stored_dtype(subject) or getattr(torch, case.dtype)
    samples = _sample(finding, decoder, case, dtype)
    finding.bytes = {"cache_bytes": sum(samples.steady), "retained_bytes": sum(samples.prefilled)}
    finding.figure = float(sum(samples.steady))
    for i in case.model.cached_layers:
        _judge_layer(finding, case, i, samples, dtype)
    if case.max_chunk > 2 * case.window:
        _judge_context(finding, subject, case, samples)
    _judge_profile(finding, subject, case, samples)
    if case.max_chunk > 2 * case.window:  # one long prompt: it may leave hidden bytes
        _judge_allocator(finding, subject, case)
    return finding


def _judge_allocator(finding: Finding, subject: Subject, case: Case) -> None:
    why_not = unmeasured(subject)
    if why_not:
        finding.message = "; ".join(filter(None, (finding.message, why_not)))
        return
    for problem in allocation_problems(subject, case):
        finding.fail(problem.kind, problem.message)


def _sample(finding: Finding, decoder: Decoder, case: Case, dtype: torch.dtype) -> Samples:
    tokens = tokens_for(case)
    samples = Samples(_held(finding, decoder, case.model.n_layers, dtype), [], [])
    used = 0
    for step in case.schedule.steps:
        assert isinstance(step, Feed)
        decoder.feed(tokens[:, used : used + step.n])
        used += step.n
        held = _held(finding, decoder, case.model.n_layers, dtype)
        if step.n > 1:
            samples.prefilled = held
        else:
            samples.decoded.append(held)
    return samples


def _held(finding: Finding, decoder: Decoder, n_layers: int, dtype: torch.dtype) -> list[int]:
    """Bytes per layer that the decoder reports; for caches, checked against their storages."""
    said = list(decoder.cache_bytes())
    if len(said) != n_layers:
        raise ContractError(f"cache_bytes() must give {n_layers} layers' bytes, got {len(said)}")
    if not isinstance(decoder, CacheDecoder):
        return said
    real = list(said)
    for i, cache in decoder.caches.items():
        held = list(tensors_of(cache))
        # Index and mask tensors may be counted or not; keys and values must be.
        allowed = (storage_bytes(held), storage_bytes(filter(Tensor.is_floating_point, held)))
        if said[i] not in allowed and finding.status is Status.PASS:
            finding.fail(
                Kind.BYTES_CLAIMED_DIFFER,
                f"layer {i}: nbytes() says {said[i]:,}, its storages hold {allowed[0]:,}"
                f"{'' if held else ' (memory outside torch is not seen)'}",
            )
        real[i] = said[i] if said[i] in allowed else allowed[0]
        _judge_precision(finding, i, held, cache_shape(decoder.case, i).head_dim, dtype)
    return real


def _judge_precision(
    finding: Finding, i: int, held: list[Tensor], head_dim: int, dtype: torch.dtype
) -> None:
    """Fail if keys or values are stored in a wider precision than `dtype`."""
    for t in held:
        stored = t.dim() >= 3 and t.shape[-1] == head_dim and t.is_floating_point()
        wider = stored and t.element_size() > dtype.itemsize
        if wider and finding.status is Status.PASS:
            finding.fail(Kind.STORED_TOO_WIDE, f"layer {i} stores {t.dtype} in a cache of {dtype}")


def _judge_layer(
    finding: Finding, case: Case, i: int, samples: Samples, dtype: torch.dtype
) -> None:
    layer, shape = case.model.layers[i], cache_shape(case, i)
    slot = 2 * shape.batch * shape.n_kv_heads * shape.head_dim * dtype.itemsize
    needed = len(layer.visible(case.schedule.length)) - 1  # the next query brings its own key
    steady = samples.steady[i]
    if steady < needed * slot:
        finding.fail(
            Kind.BYTES_TOO_FEW,
            f"layer {i}: {steady:,} bytes cannot hold the {needed} keys and values of {slot} bytes "
            f"that {layer} needs",
        )
    if not layer.bounded:
        return
    allocated_ahead = samples.fresh[i] >= steady
    turn = layer.window or layer.chunk or 0
    slots = max(layer.sink + 2 * turn, _FEWEST) + (case.max_chunk if allocated_ahead else 0)
    for when, held in (
        ("after the prefill", samples.prefilled[i]),
        ("after the first decode", samples.decoded[0][i]),
        ("in the steady state", steady),
    ):
        # Common rings hold twice the window; index tensors need some bytes per slot.
        limit = slots * (slot + 16)
        if held > limit:
            finding.fail(
                Kind.BYTES_TOO_MANY,
                f"layer {i} holds {held:,} bytes {when}; {layer} needs {needed * slot:,} and may "
                f"take {limit:,} ({slots} slots)",
            )
    middle = samples.decoded[len(samples.decoded) // 2][i]
    if steady > middle:
        finding.fail(
            Kind.BYTES_GROW,
            f"layer {i} still grows while it decodes: {middle:,} to {steady:,} bytes",
        )


def _judge_context(finding: Finding, subject: Subject, case: Case, samples: Samples) -> None:
    """Fail for a bounded layer that allocates the whole context ahead.

    Room for the longest chunk may look like that where one chunk is nearly the whole context.  So
    the same is opened for twice the context: what is allocated then must not have grown.
    """
    steps = (*case.schedule.steps, *chunks(case.max_context, (1,)))
    longer = replace(case, schedule=Schedule("twice the context", steps))
    more = list(open_decoder(subject, longer).cache_bytes())
    for i in case.model.cached_layers:
        fresh = samples.fresh[i]
        if case.model.layers[i].bounded and samples.steady[i] <= fresh < more[i]:
            finding.fail(
                Kind.BYTES_TOO_MANY,
                f"layer {i} allocates by the context: {fresh:,} bytes for {case.max_context:,} "
                f"positions, {more[i]:,} for {longer.max_context:,}",
            )


def _judge_profile(finding: Finding, subject: Subject, case: Case, samples: Samples) -> None:
    profile = optional(subject, "profile")
    if profile is None:
        return
    if isinstance(subject, CacheSubject):
        layers, device = case.model.layers, device_of(subject)
        said = [
            profile(layers[i], cache_shape(case, i, device)) if i in case.model.cached_layers else 0
            for i in range(case.model.n_layers)
        ]
    else:
        said = list(profile(case))
    if len(said) != len(samples.steady):
        raise ContractError(f"profile() must give {len(samples.steady)} layers, got {len(said)}")
    if said != samples.steady:
        i = next(j for j, (a, b) in enumerate(zip(said, samples.steady, strict=True)) if a != b)
        finding.fail(
            Kind.BYTES_DIFFER,
            f"layer {i} holds {samples.steady[i]:,} bytes in the steady state, its profile says "
            f"{said[i]:,}",
        )
