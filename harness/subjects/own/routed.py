"""The router as subjects: called for one layer, and inside whole transformers models."""

from __future__ import annotations

from torch import Tensor, nn

from harness.law import Layer
from harness.schemes.band.routing import AttentionFunction, Router, routing
from harness.schemes.validation import check_attention
from harness.subjects.own.banded import window_of
from harness.subjects.transformers.caches import DynamicDecoder, SdpaDynamic


class LayerModule(nn.Module):
    """The attributes that an attention function reads from the module that calls it."""

    def __init__(self, groups: int, window: int | None, *, is_causal: bool = True) -> None:
        super().__init__()
        self.num_key_value_groups, self.sliding_window = groups, window
        self.is_causal = is_causal


class RoutedLayer:
    """A router in front of transformers' sdpa function, called as a sliding layer calls it.

    The bool mask is made once for all rows of the batch: `expand` gives it the batch's size.
    """

    name = "harness.routed.layer"
    package = "transformers"
    suite = "fa2_routing"
    schemes = frozenset({"uniform"})
    router: type[Router] = Router

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        check_attention(q, k, v)
        window, n, keys = window_of(layer), q.shape[2], k.shape[2]
        mask = layer.mask(keys - n, n, keys).to(q.device)
        module = LayerModule(q.shape[1] // k.shape[1], window)
        mask = mask.expand(q.shape[0], 1, n, keys)
        out, _ = self.router(original())(module, q, k, v, mask, sliding_window=window)
        return out.transpose(1, 2)


def original() -> AttentionFunction:
    """transformers' registered sdpa function."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    found: AttentionFunction = sdpa_attention_forward
    return found


class RoutedDecoder(DynamicDecoder):
    """Every feed runs under the router: a prefill is routed, feeds onto a cache are passed on."""

    def feed(self, tokens: Tensor) -> Tensor:
        with routing():
            return super().feed(tokens)


class Routed(SdpaDynamic):
    """transformers' tiny Gemma 4, Gemma 3 and Mistral with a DynamicCache, under the router.

    The router does not change what caches get right or wrong: they are checked without it.
    """

    name = "harness.routed"
    suite = "fa2_routing"
    decoder = RoutedDecoder
    models = ("gemma4-e2b", "gemma4-26b", "gemma3", "mistral")
    checks = frozenset({"visibility", "values"})
