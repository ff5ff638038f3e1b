"""Compares the bytes allocated for a cache with what it reports and what a walk of it finds.

`nbytes()` can lie, and a walk through attributes and closures misses what is held by a global, a
frame or a C++ object.  The allocator misses nothing: a schedule is run as one measured call, and
whatever it allocated and has not freed by its end belongs to the cache, or has leaked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor

from harness.cases.case import Case
from harness.checks.common import device_of, distinct_layers
from harness.checks.measured import OPEN, cache_run, decoder_run, index_bytes
from harness.contract import CacheSubject, Subject
from harness.memory.storage import storage_bytes, tensors_of
from harness.results.finding import Kind


@dataclass(frozen=True)
class Problem:
    """What is wrong with the bytes of a cache or decoder, for `Finding.fail`."""

    kind: Kind
    message: str


def unmeasured(subject: Subject) -> str:
    """Why no allocator is asked about this subject's bytes; "" where one is.

    The CUDA allocator counts a whole call, which is enough for a cache.  A decoder's feeds must be
    told apart from its opening, and its steps are known on the CPU alone.
    """
    kind = device_of(subject).type
    if kind == "cpu" or (kind == "cuda" and isinstance(subject, CacheSubject)):
        return ""
    return f"bytes that it does not report are not looked for on {kind}"


def allocation_problems(subject: Subject, case: Case) -> Iterator[Problem]:
    """What is wrong with the bytes of each distinct layer, or of the decoder.

    For a cache, everything that new_cache and the updates left allocated must be reachable from
    the cache, and `nbytes()` must report all that is reachable, or its floating-point tensors
    alone.  For a decoder, what its feeds left allocated must be what `cache_bytes()` grew by, with
    or without its index tensors.

    Call this only after the subject has been run once, for there is no warm-up here, and where
    `unmeasured` is "".
    Raises harness.memory.ProbeError where memory cannot be measured.
    """
    if isinstance(subject, CacheSubject):
        for i, layer in distinct_layers(case.model):
            for problem in _cache_problems(subject, case, i):
                yield Problem(problem.kind, f"layer {i}, {layer}: {problem.message}")
    else:
        yield from _decoder_problems(subject, case)


def _cache_problems(subject: CacheSubject, case: Case, i: int) -> Iterator[Problem]:
    measured = cache_run(subject, case, i, warmup=0)
    cache = measured.result
    assert cache is not None
    tensors = list(tensors_of(cache))
    held = storage_bytes(tensors)
    stored = storage_bytes(filter(Tensor.is_floating_point, tensors))
    said = cache.nbytes()
    # Retaining less than is held is not a fault: constants may be shared with an earlier cache.
    if measured.retained_bytes > held:
        yield Problem(
            Kind.BYTES_LEAKED,
            f"{measured.retained_bytes:,} bytes stay allocated, {held:,} of them within reach of "
            "the cache: something else keeps the rest",
        )
    if said not in (held, stored):
        text = f"nbytes() says {said:,}, its storages hold {held:,}"
        yield Problem(Kind.BYTES_CLAIMED_DIFFER, text)


def _decoder_problems(subject: Subject, case: Case) -> Iterator[Problem]:
    measured = decoder_run(subject, case, warmup=0)
    before = measured.result
    assert before is not None
    opened = next(s for s in measured.steps if s.name == OPEN)
    kept = measured.steps[-1].held_bytes - opened.held_bytes
    said = sum(before.decoder.cache_bytes()) - before.said
    # Index and mask tensors may be counted or not, as in a cache.
    if kept not in (said, said + index_bytes(before.decoder) - before.indices):
        text = f"the feeds left {kept:,} bytes allocated, cache_bytes() grew by {said:,}"
        yield Problem(Kind.BYTES_CLAIMED_DIFFER, text)
