"""Defects of rewinds, by where they go: ahead, to 0, to the end, far; and in half."""

from __future__ import annotations

import torch

from harness.defects.base import Trimmed
from harness.reference.cache_decoder import CacheDecoder


def _drop_newest(cache: Trimmed, n: int) -> None:
    """Forget the n newest keys, but not that they were there."""
    keep = max(cache.keys.shape[2] - n, 0)
    cache.keys, cache.values = cache.keys[:, :, :keep], cache.values[:, :, :keep]
    cache.kept = cache.kept[:keep]


class RefusedAheadForgets(Trimmed):
    """A rewind to more positions than are held drops the newest key, and is refused."""

    def rewind(self, length: int) -> None:
        if length > self.length:
            _drop_newest(self, 1)
        super().rewind(length)


class RewindToTheEnd(Trimmed):
    """A rewind to all that is held forgets everything: the slice ends at minus 0."""

    def rewind(self, length: int) -> None:
        if length == self.length:
            _drop_newest(self, self.keys.shape[2])
        else:
            super().rewind(length)


class RewindToNothing(Trimmed):
    """A rewind to 0 leaves the first key."""

    def rewind(self, length: int) -> None:
        first = self.keys[:, :, :1], self.values[:, :, :1], self.kept[:1]
        super().rewind(length)
        if length == 0:
            self.keys, self.values, self.kept = first
            self.kept = torch.zeros_like(self.kept)


class RewindInHalf(Trimmed):
    """In half precision a rewind drops the newest key that should have stayed."""

    def rewind(self, length: int) -> None:
        super().rewind(length)
        if self.shape.dtype.itemsize < torch.float32.itemsize:
            _drop_newest(self, 1)


class RewindPast128(Trimmed):
    """A rewind past position 128 drops the newest key that should have stayed."""

    def rewind(self, length: int) -> None:
        super().rewind(length)
        if length > torch.iinfo(torch.int8).max:
            _drop_newest(self, 1)


class ResetAfterRewind(Trimmed):
    """A reset that follows a rewind leaves the newest key."""

    rewound = False

    def rewind(self, length: int) -> None:
        super().rewind(length)
        self.rewound = True

    def reset(self) -> None:
        last = (self.keys[:, :, -1:], self.values[:, :, -1:]) if self.rewound else None
        super().reset()
        if last is not None:
            self.keys, self.values = last
            self.kept = torch.zeros(last[0].shape[2], dtype=torch.int64)
        self.rewound = False


class DecoderRewindsToTheEnd(CacheDecoder):
    """A decoder that takes a rewind to all that is held for a reset of its positions."""

    def rewind(self, length: int) -> None:
        at_end = length == self.length
        super().rewind(length)
        if at_end:
            self.length = 0
