"""What a refused rewind says of the cache: refusing what is still held is a broken claim.

A cache that states `first_held()` is taken at its word.  One that states nothing is looked at: it
holds a position whose key and value its next update still returns, bit for bit, in every row of the
batch and every head.  A cache that returns other bits (another dtype, another rotation) is not
judged.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.schedules import Feed, Reset, Rewind
from harness.checks.common import distinct_layers, new_cache, on_device, op_shape
from harness.contract import CacheSubject, ContractError, Decoder, LayerCache, optional
from harness.law import Layer
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
    firsts = [_first(first) for first in state()]
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
        x = random(case, fed + 1, shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)
        k, v = on_device(subject, x.k, x.v)
        text = _walk(new_cache(subject, layer, shape), case, layer, k, v)
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
                then = slice(used, used + 1)
                following = k[:, :, then].clone(), v[:, :, then].clone()
                return _judge(cache, layer, (keys, values), following, step.length, refused)
            keys, values = keys[:, :, : step.length], values[:, :, : step.length]
    return ""


def _judge(
    cache: LayerCache,
    layer: Layer,
    history: tuple[Tensor, Tensor],
    new: tuple[Tensor, Tensor],
    length: int,
    refused: Exception,
) -> str:
    at = needed(layer, length)
    if not at:  # no key is needed: nothing is held that the refusal could deny
        return ""
    state = optional(cache, "first_held")
    if state is not None:
        first = _first(state())
        if any(layer.sink <= k < first for k in at):
            return ""
        how = f"first_held() says {first}"
    elif still_returned(cache, new, tuple(x[:, :, at] for x in history)):
        how = (
            f"its next update returns the keys and values of all {len(at)} positions that the next "
            "query sees"
        )
    else:
        return ""
    text = f"{type(refused).__name__}: {refused}"
    return f"rewind from {history[0].shape[2]} to {length} was refused ({text}), though {how}"


def _first(said: object) -> int:
    """Raises ContractError for what is no position."""
    if isinstance(said, bool) or not isinstance(said, int):
        raise ContractError(f"first_held() must return an int, got {type(said).__name__}")
    return said


def still_returned(
    cache: LayerCache, new: tuple[Tensor, Tensor], wanted: tuple[Tensor, ...]
) -> bool:
    """True if the next update, of `new`, returns every row of the wanted keys and values.

    Memory that holds them by chance, such as a block that was freed, is not looked at.
    """
    try:
        keys, values, _ = cache.update(*new)
    except Exception:
        return False
    return all(
        isinstance(x, Tensor) and x.dtype == rows.dtype and _rows(rows) <= _rows(x)
        for x, rows in zip((keys, values), wanted, strict=True)
    )


def _rows(t: Tensor) -> set[bytes]:
    """The bytes of every row (D,) of a tensor (..., D)."""
    flat = t.detach().cpu().reshape(-1, t.shape[-1]).contiguous()
    raw = flat.view(torch.uint8).numpy().tobytes()
    size = t.shape[-1] * t.element_size()
    return {raw[i : i + size] for i in range(0, len(raw), size)}
