"""Two uses of transformers' caches that no plain schedule reaches.

A DynamicCache that is gathered and rebuilt between calls, as distributed inference and exporters
do; and a StaticCache made for fewer positions than are fed to it.
"""

from __future__ import annotations

from torch import Tensor

from harness.cases.case import Case
from harness.contract import Unsupported
from harness.law import Layer
from harness.subjects.transformers.caches import (
    DynamicDecoder,
    StaticCacheDecoder,
    TransformersSubject,
)


class RebuiltDecoder(DynamicDecoder):
    """After each call the cache is taken apart and put together again."""

    def feed(self, tokens: Tensor) -> Tensor:
        from transformers import DynamicCache

        logits = super().feed(tokens)
        self.cache = DynamicCache(ddp_cache_data=list(self.cache))
        return logits


class DynamicDdp(TransformersSubject):
    """DynamicCache rebuilt through ``ddp_cache_data``, the path of data-parallel gathering.

    What is lost depends on the cache's classes, not the model: one model per scheme is claimed.
    """

    name, attention = "transformers.dynamic.ddp", "eager"
    decoder = RebuiltDecoder
    models = ("mistral", "gemma3", "llama4", "llama3")

    def slots(self, law: Layer, case: Case) -> int:
        # The rebuilt tensors are copies of the views: storage for window - 1 tokens, and no more.
        limit = (law.window or law.chunk or 0) - 1
        n = case.schedule.length
        return min(n, limit) if law.bounded else n


def _short_length(window: int) -> int:
    """Positions of a cache that is too short: 12 for a window of 20."""
    return 3 * window // 5


class ShortDecoder(StaticCacheDecoder):
    """StaticCache for fewer positions than the window holds, and than are fed."""

    def __init__(self, case: Case, attention: str) -> None:
        if case.max_context <= _short_length(case.window):
            raise Unsupported("the cache holds all positions of this schedule")
        super().__init__(case, attention)

    def max_cache_len(self) -> int:
        return _short_length(self.case.window)


class StaticShort(TransformersSubject):
    """StaticCache with ``max_cache_len`` below both the window and what is fed.

    A cache that cannot hold what it is given must say so, as a full layer's does: it raises.
    """

    name, attention = "transformers.static.short", "eager"
    schemes = frozenset({"uniform"})
    decoder = ShortDecoder
    models = ("mistral",)

    def slots(self, law: Layer, case: Case) -> int:  # noqa: ARG002
        return _short_length(case.window)
