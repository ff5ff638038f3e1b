"""The caches of transformers: DynamicCache, StaticCache and none, with eager or sdpa attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.schedules import Feed, Rewind
from harness.contract import Unsupported
from harness.law import Layer
from harness.results.finding import NAMES
from harness.schemes.validation import check_rewind
from harness.subjects.transformers.models import call, dense, model_for


class TransformersDecoder:
    """A tiny model driven through ``model(input_ids, past_key_values=cache, use_cache=True)``.

    Subclasses choose the cache; the harness chooses what is fed.
    """

    def __init__(self, case: Case, attention: str) -> None:
        self.case = case
        self.model = model_for(case, attention)
        self.cache = self.new_cache()

    def new_cache(self) -> Any:
        """An empty cache of the kind under test, or None for no cache."""
        raise NotImplementedError

    def feed(self, tokens: Tensor) -> Tensor:
        """tokens (B, t) int64 -> logits (B, t, V)."""
        cached = self.cache is not None
        return call(self.model, tokens, past_key_values=self.cache, use_cache=cached)

    def reset(self) -> None:
        """Empty the cache by its own `reset`."""
        if self.cache is not None:
            self.cache.reset()

    def cache_bytes(self) -> list[int]:
        """Bytes of the storages behind each layer's keys and values, each storage counted once.

        A view of a longer tensor keeps all of it alive, so the bytes of the view say too little.
        """
        counted: set[int] = set()
        sizes = []
        for layer in self.cache.layers if self.cache is not None else ():
            held = [x.untyped_storage() for x in (layer.keys, layer.values) if x is not None]
            new = {s.data_ptr(): s.nbytes() for s in held if s.data_ptr() not in counted}
            counted |= set(new)
            sizes.append(sum(new.values()))
        return sizes or [0] * self.case.model.n_layers

    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        """tokens (B, n) -> logits (B, n, V): no cache, masks from the law."""
        return dense(self.model, tokens, self.case.model.layers if layers is None else layers)


class DynamicDecoder(TransformersDecoder):
    """DynamicCache: grows by concatenation, sliding layers keep the last window - 1 tokens."""

    def new_cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self.model.config)

    def feed(self, tokens: Tensor) -> Tensor:
        logits = super().feed(tokens)
        if self.case.schedule.has(Rewind):
            # As assisted generation does after its prefill: without it a sliding layer that has
            # reached its window refuses to be cropped.
            self.cache.activate_past_recording()
        return logits

    def rewind(self, length: int) -> None:
        """Crop to `length` positions, as assisted generation does with rejected candidates.

        Raises ValueError for a length that is not held: `crop` takes a count of tokens.
        """
        held = int(self.cache.get_seq_length())
        self.cache.crop(check_rewind(length, held) - held)


class StaticCacheDecoder(TransformersDecoder):
    """StaticCache: buffers of min(window, max_cache_len) slots, written in place."""

    def max_cache_len(self) -> int:
        """Positions that the cache is made for."""
        return self.case.max_context

    def new_cache(self) -> Any:
        from transformers import StaticCache

        return StaticCache(config=self.model.config, max_cache_len=self.max_cache_len())

    def rewind(self, length: int) -> None:
        """Raises NotImplementedError: StaticCache has no crop, and says so itself."""
        if not self.cache.is_croppable:
            raise NotImplementedError(
                f"cannot go back to {length}: StaticCache.is_croppable is False"
            )
        held = int(self.cache.get_seq_length())
        self.cache.crop(check_rewind(length, held) - held)


class NoCacheDecoder(TransformersDecoder):
    """No cache: one forward pass over everything, with transformers' own masks."""

    def __init__(self, case: Case, attention: str) -> None:
        if sum(isinstance(step, Feed) for step in case.schedule.steps) != 1:
            raise Unsupported("no cache: the next tokens would not see the previous ones")
        super().__init__(case, attention)

    def new_cache(self) -> None:
        return None


class TransformersSubject:
    """Base of the subjects, each with an attention and a cache.

    models: names of the models that are claimed, also for their one-layer versions; None for all.
    """

    package = "transformers"
    dense_key = "transformers"  # eager and sdpa attention differ by rounding, not in float64
    name: str
    schemes = frozenset({"full", "uniform", "interleaved", "chunked"})
    attention: str
    decoder: type[TransformersDecoder]
    models: tuple[str, ...] | None = None
    #: Checks of what a cache does by itself, whatever the attention.
    of_the_cache = frozenset({"cache_bytes", "reset", "rewind", "refusal"})

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """False for models that this subject does not claim, and for gemma4-static.

        gemma4-26b has the cache layers of gemma4-e2b, so it skips the checks of a cache by itself.
        """
        name = case.model.name.partition(".")[0]
        if name == "gemma4-static" or (name == "gemma4-26b" and check in cls.of_the_cache):
            return False
        return cls.models is None or name in cls.models

    def open(self, case: Case) -> TransformersDecoder:
        """A fresh decoder.  Raises Unsupported for a model or schedule that is not claimed."""
        if self.models is not None and case.model.name.partition(".")[0] not in self.models:
            raise Unsupported(f"claimed for {', '.join(self.models)} only")
        return self.decoder(case, self.attention)

    def profile(self, case: Case) -> list[int]:
        """Exact storage bytes of each layer in steady one-token decoding."""
        model = case.model
        element = torch.finfo(getattr(torch, case.dtype)).bits // 8
        sizes = [0] * model.n_layers
        for i in model.cached_layers:
            per_slot = 2 * model.layer_kv_heads(i) * model.layer_head_dim(i) * element
            sizes[i] = case.batch * per_slot * self.slots(model.layers[i], case)
        return sizes

    def slots(self, law: Layer, case: Case) -> int:
        """Tokens whose keys and values a layer stores in steady one-token decoding."""
        raise NotImplementedError


def _bounded(law: Layer, positions: int) -> int:
    """Positions, but no more than the window or chunk of a bounded layer."""
    return min(law.window or law.chunk or positions, positions)


class _Dynamic(TransformersSubject):
    decoder = DynamicDecoder

    def slots(self, law: Layer, case: Case) -> int:
        # A sliding layer keeps a view of the last window - 1 tokens of the `window` tokens that
        # one decode step concatenated: one more in storage than in use.
        return _bounded(law, case.schedule.length)


class _Static(TransformersSubject):
    decoder = StaticCacheDecoder

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """False for gemma4-26b, whose cache layers are those of gemma4-e2b."""
        return not case.model.name.startswith("gemma4-26b") and super().covers(check, case)

    def slots(self, law: Layer, case: Case) -> int:
        return _bounded(law, case.max_context)


class _Eager(TransformersSubject):
    """Eager attention: what it makes of a cache's keys, values and masks.

    What a cache does by itself is checked under sdpa, the default.
    """

    attention = "eager"
    checks = frozenset(NAMES) - TransformersSubject.of_the_cache

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """False for gemma4-26b: gemma4-e2b stands for Gemma 4 here."""
        return not case.model.name.startswith("gemma4-26b") and super().covers(check, case)


class _NoCache(TransformersSubject):
    decoder = NoCacheDecoder

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """False for schedules of several steps: without a cache all is fed at once."""
        return len(case.schedule.steps) == 1 and super().covers(check, case)

    def slots(self, law: Layer, case: Case) -> int:  # noqa: ARG002
        return 0


class EagerDynamic(_Eager, _Dynamic):
    """Eager attention over DynamicCache."""

    name = "transformers.eager.dynamic"


class EagerStatic(_Eager, _Static):
    """Eager attention over StaticCache.

    Gemma 4 is left out: its buffers have the lengths of Gemma 3's.
    """

    name = "transformers.eager.static"

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """False for Gemma 4: it has this cache under sdpa, and this attention over DynamicCache."""
        return not case.model.name.startswith("gemma4") and super().covers(check, case)


class EagerNoCache(_NoCache):
    """Eager attention, no cache."""

    name, attention = "transformers.eager.nocache", "eager"


class SdpaDynamic(_Dynamic):
    """torch's scaled_dot_product_attention over DynamicCache."""

    name, attention = "transformers.sdpa.dynamic", "sdpa"


class SdpaStatic(_Static):
    """torch's scaled_dot_product_attention over StaticCache."""

    name, attention = "transformers.sdpa.static", "sdpa"


class SdpaNoCache(_NoCache):
    """torch's scaled_dot_product_attention, no cache."""

    name, attention = "transformers.sdpa.nocache", "sdpa"
