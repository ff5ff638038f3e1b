"""mlx-lm's Gemma 3 on the CPU, driven through ``model(tokens, cache=cache)`` as `generate` does.

Every geometry that is claimed is run as a tiny random Gemma 3; sliding layers have a
RotatingKVCache, full layers a KVCache.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.models import Model
from harness.cases.schedules import Feed
from harness.contract import Unsupported
from harness.estimate.geometry import from_model
from harness.estimate.profiles.base import Request
from harness.estimate.profiles.mlx import Mlx
from harness.law import Layer
from harness.reference.decoder import check_tokens
from harness.results.finding import NAMES
from harness.runtimes import gemma3
from harness.runtimes.mlx_arrays import to_mlx, to_torch
from harness.schemes.validation import check_rewind


class MlxDecoder:
    """A tiny model and the cache that `make_prompt_cache` gives it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._model: Any = None
        self.cache: list[Any] = []
        self.reset()

    @property
    def model(self) -> Any:
        """The model, made on first use: a float64 decoder only runs the dense reference."""
        if self._model is None:
            if self.case.dtype != "float32":
                raise Unsupported("claimed in float32 only")
            self._model = built(self.case.model, self.case.vocab, self.case.weights_seed)
        return self._model

    def feed(self, tokens: Tensor) -> Tensor:
        """tokens (B, t) int64 -> logits (B, t, V)."""
        # For an index outside a table MLX reads whatever memory follows it.
        check_tokens(tokens, self.case.batch, self.case.vocab)
        return to_torch(self.model(to_mlx(tokens), cache=self.cache or self.reset()))

    def reset(self) -> list[Any]:
        """Take a new cache: mlx-lm's caches have no reset."""
        from mlx_lm.models.cache import make_prompt_cache

        if self.case.dtype == "float32":
            self.cache = make_prompt_cache(self.model)
        return self.cache

    def rewind(self, length: int) -> None:
        """``trim_prompt_cache``.  Raises RuntimeError where the cache says it cannot be trimmed.

        Raises ValueError for a length that is not held: a cache is trimmed by a count of tokens.
        """
        from mlx_lm.models.cache import can_trim_prompt_cache, trim_prompt_cache

        if not can_trim_prompt_cache(self.cache):
            raise RuntimeError(f"cannot go back to {length}: can_trim_prompt_cache is False")
        held = self.cache[0].offset
        trim_prompt_cache(self.cache, held - check_rewind(length, held))

    def cache_bytes(self) -> list[int]:
        """Bytes of each layer's arrays."""
        return [self.cache[i].nbytes for i in range(self.case.model.n_layers)]

    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        """tokens (B, n) -> logits (B, n, V): the same weights, masks from the law."""
        weights = gemma3.make(self.case.model, self.case.vocab, self.case.weights_seed)
        return gemma3.dense(weights.to(getattr(torch, self.case.dtype)), tokens, layers)


class MlxSubject:
    """mlx-lm with its default caches."""

    package = "mlx-lm"
    name = "mlx"
    dense_key = gemma3.DENSE_KEY
    schemes = frozenset({"full", "uniform", "interleaved"})
    models = ("gemma3", "mistral", "mistral-w1", "mistral-w9", "mistral-w64", "llama3")

    #: All but the check that needs PyTorch's allocator.
    checks = frozenset(NAMES) - {"peak_bytes"}

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """False for other models, and for `cache_bytes` after one long prompt."""
        if case.model.name.partition(".")[0] not in cls.models:
            return False
        # After one long prompt the check asks PyTorch's allocator, which does not see MLX's arrays.
        return check != "cache_bytes" or case.max_chunk <= 2 * case.window

    def open(self, case: Case) -> MlxDecoder:
        """A fresh decoder.  Raises Unsupported for a model that is not claimed."""
        if case.model.name.partition(".")[0] not in self.models:
            raise Unsupported(f"claimed for {', '.join(self.models)} only")
        return MlxDecoder(case)

    def profile(self, case: Case) -> list[int]:
        """Bytes per layer, from the estimator's profile of mlx-lm, with the schedule's prompt."""
        sizes = [step.n for step in case.schedule.steps if isinstance(step, Feed)]
        prompt = sum(n for n in sizes if n > 1) + 1  # the profile's prompt ends in a single token
        request = Request(sum(sizes), case.batch, prompt=prompt, k_type="f32", v_type="f32")
        return Mlx(prefill_step=max(sizes)).layer_bytes(
            from_model(gemma3.as_gemma3(case.model)), request
        )


@lru_cache(maxsize=64)
def built(model: Model, vocab: int, seed: int) -> Any:
    """The mlx-lm model of a geometry; kept and shared between cases.

    Raises Unsupported for a pattern of layers that Gemma 3 in mlx-lm cannot have.
    """
    from mlx_lm.models.gemma3_text import Model as Gemma3
    from mlx_lm.models.gemma3_text import ModelArgs

    pattern, n_layers = _pattern(model)
    args = ModelArgs(
        model_type="gemma3_text",
        hidden_size=gemma3.HIDDEN,
        num_hidden_layers=n_layers,
        intermediate_size=gemma3.FEED_FORWARD,
        num_attention_heads=model.n_heads or 1,
        head_dim=model.head_dim,
        vocab_size=vocab,
        num_key_value_heads=model.n_kv_heads,
        query_pre_attn_scalar=model.head_dim,
        sliding_window=model.window or 1,
        sliding_window_pattern=pattern,
    )
    out = Gemma3(args)
    # If all layers slide, the full layer that the class requires is cut off.
    out.model.layers = out.model.layers[: model.n_layers]
    weights = gemma3.make(model, vocab, seed).checkpoint()
    named = {name: to_mlx(tensor) for name, tensor in weights.items()}
    out.load_weights(list(out.sanitize(named).items()))
    return out


def _pattern(model: Model) -> tuple[int, int]:
    """``sliding_window_pattern`` and ``num_hidden_layers``."""
    slides = [kind == "sliding_attention" for kind in model.layer_types]
    if not any(slides):
        return 1, model.n_layers
    if all(slides):
        return model.n_layers + 1, model.n_layers + 1
    pattern = slides.index(False) + 1
    if slides != [(i + 1) % pattern != 0 for i in range(model.n_layers)]:
        raise Unsupported(f"mlx-lm's Gemma 3 cannot have these layers: {model.layer_types}")
    return pattern, model.n_layers
