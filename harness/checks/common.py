"""What several checks share."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.models import Model
from harness.cases.schedules import Schedule
from harness.contract import (
    AttentionSubject,
    CacheShape,
    CacheSubject,
    LayerCache,
    Subject,
    Unsupported,
    optional,
)
from harness.law import Layer, influence
from harness.reference import tolerance
from harness.reference.cache_decoder import cache_shape
from harness.reference.inputs import OP_HEAD_DIM
from harness.results.finding import Finding, Kind

_SINGLE = 4  # bytes of float32


def require_plain(case: Case) -> None:
    """Raise Unsupported for a schedule with a reset or rewind, which has its own check."""
    if not case.schedule.plain:
        raise Unsupported("a schedule with reset or rewind belongs to the check of that name")


def is_coarse(subject: Subject) -> bool:
    """True if a cache holds keys and values in half precision or less.

    The logits of a decoder over it do not tell a window from its neighbours: such a cache is
    compared layer by layer, as every cache is in half precision.
    """
    stored = stored_dtype(subject)
    return isinstance(subject, CacheSubject) and stored is not None and stored.itemsize < _SINGLE


def require_state(subject: Subject) -> None:
    """Raise Unsupported for an operation, which holds nothing between two calls."""
    if isinstance(subject, AttentionSubject):
        raise Unsupported("a stateless operation has nothing to reset or rewind")


def require_numbers(finding: Finding, rows: Tensor, where: str = "") -> bool:
    """Fail for answers (..., n, F) with NaN or an infinity; returns whether there are none."""
    bad = (~rows.isfinite().all(-1)).flatten(0, -2).any(0).nonzero().flatten().tolist()
    if bad:
        text = f"{where}nothing to compare: the answer is NaN or infinite at {len(bad)} positions"
        finding.fail(Kind.NOT_A_NUMBER, f"{text}, the first {bad[0]}", bad[0])
    return not bad


def require_memory(finding: Finding, rows: Tensor, other: Tensor, where: str = "") -> bool:
    """Fail unless later answers (..., n, F) differ between two runs that were fed otherwise before.

    Two equal runs of what remembers nothing are equal, and say nothing.  Returns whether they
    differ.
    """
    if bool(tolerance.moved(rows, other).any()):
        return True
    text = "nothing to compare: later answers do not depend on what was fed before"
    finding.fail(Kind.NOTHING_TO_COMPARE, f"{where}{text}")
    return False


def last_of_first_feed(case: Case, schedule: Schedule) -> int | None:
    """The position before the second feed of a plain schedule, where a later one depends on it."""
    spans = schedule.spans()
    if len(spans) < 2:
        return None
    at = spans[0][1] - 1
    masks = [layer.mask(0, schedule.length, schedule.length) for layer in case.model.layers]
    reached = influence(masks, case.model.kv_sources)[at + 1 :, at]
    return at if bool(reached.any()) else None


def distinct_layers(model: Model) -> list[tuple[int, Layer]]:
    """(index, law) of one cached layer per law and shape."""
    seen: dict[tuple[Layer, int, int], int] = {}
    for i in model.cached_layers:
        key = (model.layers[i], model.layer_kv_heads(i), model.layer_head_dim(i))
        seen.setdefault(key, i)
    return [(i, model.layers[i]) for i in seen.values()]


def op_shape(case: Case, layer: int) -> CacheShape:
    """The cache shape of a layer, with the head_dim of single-layer inputs."""
    return replace(cache_shape(case, layer), head_dim=OP_HEAD_DIM)


def device_of(subject: Subject) -> torch.device:
    """The torch device on which a cache or an operation is run; the CPU where it names none."""
    return torch.device(optional(subject, "device"))


def new_cache(subject: CacheSubject, layer: Layer, shape: CacheShape) -> LayerCache:
    """An empty cache of that shape, on the subject's device."""
    return subject.new_cache(layer, replace(shape, device=device_of(subject)))


def on_device(subject: Subject, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors on the subject's device; those that are there already are not copied."""
    device = device_of(subject)
    return tuple(t.to(device) for t in tensors)


def stored_dtype(subject: Subject) -> torch.dtype | None:
    """The dtype in which the subject says that it holds keys and values; None: the case's."""
    stored = optional(subject, "stored")
    return None if stored is None else getattr(torch, stored)
