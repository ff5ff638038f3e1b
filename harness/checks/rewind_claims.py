"""What a refused rewind says of the cache: refusing what is still held is a broken claim.

A cache that states `first_held()` is taken at its word.  One that states nothing is looked at: it
holds a position where the exact bits of that position's key and value, in every row of the batch
and every head, stand in the tensors within reach of it.  A cache that stores other bits (another
dtype, another rotation) is not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.schedules import Feed, Reset, Rewind
from harness.checks.common import distinct_layers, op_shape
from harness.contract import CacheSubject, Decoder, LayerCache, optional
from harness.law import Layer
from harness.memory.storage import tensors_of
from harness.reference.inputs import random


def needed(layer: Layer, length: int) -> list[int]:
    """Positions whose keys the next query sees after a rewind to `length`."""
    return sorted(k for k in layer.visible(length) if k < length)


def positions_rewound(case: Case) -> int:
    """How many positions the schedule's rewinds go back, all together."""
    back = length = 0
    for step in case.schedule.steps:
        if isinstance(step, Feed):
            length += step.n
        elif isinstance(step, Reset):
            length = 0
        elif isinstance(step, Rewind):
            back, length = back + length - step.length, step.length
    return back


def refused_though_stated(decoder: Decoder, case: Case, length: int) -> str:
    """Why a refusal to rewind to `length` breaks `decoder.first_held()`; "" where it does not."""
    state = optional(decoder, "first_held")
    if state is None:
        return ""
    layers = case.model.layers
    firsts = list(state())
    for i in case.model.cached_layers:
        keys = [k for k in needed(layers[i], length) if k >= layers[i].sink]
        if keys and keys[0] < firsts[i]:
            return ""
    return (
        f"rewind to {length} was refused, though first_held() says {firsts}: every key that the "
        "next query sees is held"
    )


def refused_though_held(subject: CacheSubject, case: Case) -> Iterator[str]:
    """One text for each kind of layer whose cache refuses a rewind and holds all that it needs."""
    for i, layer in distinct_layers(case.model):
        shape = op_shape(case, i)
        fed = sum(step.n for step in case.schedule.steps if isinstance(step, Feed))
        x = random(case, fed, shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
        text = _walk(subject.new_cache(layer, shape), case, layer, x.k, x.v)
        if text:
            yield f"{layer}: {text}"


def _walk(cache: LayerCache, case: Case, layer: Layer, k: Tensor, v: Tensor) -> str:
    """Feed (B, H, n, D) by the schedule up to a refused rewind; what is wrong with the refusal."""
    if optional(cache, "rewind") is None:
        return ""
    keys, values, used = k[:, :, :0], v[:, :, :0], 0
    for step in case.schedule.steps:
        if isinstance(step, Feed):
            new = slice(used, used + step.n)
            cache.update(k[:, :, new].clone(), v[:, :, new].clone())
            keys, values = torch.cat((keys, k[:, :, new]), 2), torch.cat((values, v[:, :, new]), 2)
            used += step.n
        elif isinstance(step, Rewind):
            try:
                cache.rewind(step.length)  # type: ignore[attr-defined]  # optional member
            except Exception as refused:
                return _judge(cache, layer, keys, values, step.length, refused)
            keys, values = keys[:, :, : step.length], values[:, :, : step.length]
    return ""


def _judge(
    cache: LayerCache, layer: Layer, keys: Tensor, values: Tensor, length: int, refused: Exception
) -> str:
    at = needed(layer, length)
    state = optional(cache, "first_held")
    if state is not None:
        first = state()
        if any(layer.sink <= k < first for k in at):
            return ""
        how = f"first_held() says {first}"
    elif holds(tensors_of(cache), (keys[:, :, at], values[:, :, at])):
        how = f"the keys and values of all {len(at)} positions that the next query sees are held"
    else:
        return ""
    text = f"{type(refused).__name__}: {refused}"
    return f"rewind from {keys.shape[2]} to {length} was refused ({text}), though {how}"


def holds(tensors: Iterable[Tensor], wanted: tuple[Tensor, ...]) -> bool:
    """True if every row (D,) of the wanted tensors (..., D) stands, bit for bit, in `tensors`."""
    width, dtype = wanted[0].shape[-1], wanted[0].dtype
    held: set[bytes] = set()
    for t in tensors:
        if t.dtype == dtype and t.dim() and t.shape[-1] % width == 0 and t.device.type == "cpu":
            held |= _rows(t, width)
    return all(_rows(t, width) <= held for t in wanted)


def _rows(t: Tensor, width: int) -> set[bytes]:
    flat = t.detach().reshape(-1, width).contiguous()
    raw = flat.view(torch.uint8).numpy().tobytes()
    size = width * t.element_size()
    return {raw[i : i + size] for i in range(0, len(raw), size)}
