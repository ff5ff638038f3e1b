"""Where a static cache keeps which position, and the masks that follow from it.

The mask of every chunk is made from the positions that the slots hold and from the law, so the
window is always exact: before and after the cache fills, when the chunk is longer than the cache,
when the cache length is not a multiple of the chunk's, after a padded chunk, after a rewind.  The
padding of a last chunk comes after its tokens, so causality hides it from them; it is never stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.law import Layer
from harness.schemes.retention import Held
from harness.schemes.static.layout import StaticLayout, Style
from harness.schemes.validation import check_rewind


@dataclass(frozen=True)
class Write:
    """How a chunk goes into a cache: shift the slots after the sink left, then copy.

    shift: by how many slots.  slots (m,): the distinct slots written.  rows (m,): the tokens of the
    chunk that go into them.
    """

    shift: int
    slots: Tensor
    rows: Tensor


class CacheSlots:
    """The positions in the slots of all caches that share one length and one law."""

    def __init__(self, layer: Layer, cache_len: int, style: Style) -> None:
        self.layer, self.style = layer, style
        self.held = Held(layer, cache_len - layer.sink)
        self.positions = torch.full((cache_len,), -1)  # (C,); -1: empty

    def visible(self, chunk: Tensor) -> Tensor:
        """Bool (L, C + L): what the queries at positions `chunk` (L,) see of cache and chunk."""
        return self.layer.between(chunk, torch.cat((self.positions, chunk)))

    def write(self, n: int) -> Write:
        """Take the next n positions and return where their keys go."""
        start, sink, capacity = self.held.length, self.layer.sink, self.held.capacity
        first, end = max(start, sink), start + n
        if self.held.rolls:
            first = max(first, end - capacity)
        else:
            end = min(end, sink + capacity)
        body = torch.arange(first, max(first, end))
        if self.style == "smart_mask":
            slots, shift = sink + (body - sink) % capacity, 0
        else:
            shift = len(body)
            slots = torch.arange(sink + capacity - shift, sink + capacity)
        sinks = torch.arange(start, max(start, min(start + n, sink)))
        write = Write(shift, torch.cat((sinks, slots)), torch.cat((sinks, body)) - start)
        store(self.positions, torch.arange(start, start + n), 0, sink, write)
        self.held.advance(n)
        return write

    def rewind(self, target: int) -> Write:
        """Forget the positions from `target` on and return which slots to clear.

        In "shift_pointer" the rest moves back to the end.  Raises ValueError, before anything has
        changed, if a key that is needed again has been overwritten.
        """
        self.held.rewind(target)
        slots = (self.positions >= target).nonzero().flatten()
        shift = 0
        if self.style == "shift_pointer":
            shift = -int((slots >= self.layer.sink).sum())
        forget = Write(shift, slots, slots[:0])
        clear(self.positions, -1, 0, self.layer.sink, forget)
        return forget

    def reset(self) -> None:
        """Forget everything."""
        self.positions.fill_(-1)
        self.held.reset()


def slots_of(layout: StaticLayout) -> dict[str, CacheSlots]:
    """Empty slots for each mask of a layout, by its name."""
    return {
        name: CacheSlots(law, cache_len, layout.style)
        for name, (cache_len, law) in layout.masks.items()
    }


def rewind(slots: Mapping[str, CacheSlots], length: int, target: int) -> dict[str, Write]:
    """Forget positions from `target` on, of the `length` held; returns which slots to clear.

    Raises ValueError, and leaves the state unchanged, if a layer has overwritten a key that the
    next query would need.
    """
    check_rewind(target, length)
    for each in slots.values():
        each.held.check_rewind(target)
    return {name: each.rewind(target) for name, each in slots.items()}


def store(cache: Tensor, update: Tensor, seq_dim: int, sink: int, write: Write) -> None:
    """Write a chunk's keys or values into their cache, in place.

    A runner does the same: one shift and one scatter per cache.
    """
    _shift(cache, seq_dim, sink, write.shift)
    cache.index_copy_(seq_dim, write.slots, update.index_select(seq_dim, write.rows))


def clear(cache: Tensor, value: float, seq_dim: int, sink: int, forget: Write) -> None:
    """Overwrite forgotten slots with `value`, in place, then shift."""
    cache.index_fill_(seq_dim, forget.slots, value)
    _shift(cache, seq_dim, sink, forget.shift)


def _shift(cache: Tensor, seq_dim: int, sink: int, by: int) -> None:
    if by:
        body = cache.narrow(seq_dim, sink, cache.shape[seq_dim] - sink)
        body.copy_(body.roll(-by, seq_dim))
