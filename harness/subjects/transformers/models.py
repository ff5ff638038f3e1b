"""Tiny transformers models that have exactly the geometry of the model table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from harness.cases.case import Case
from harness.cases.models import Model
from harness.contract import Unsupported
from harness.law import Layer
from harness.subjects.transformers.configs import FAMILIES, Family, common_fields
from harness.subjects.transformers.float64 import in_full_precision


class ModelMismatch(Exception):
    """The model that transformers built is not the one that the case describes."""


def model_for(case: Case, attention: str) -> Any:
    """The built model of a case with the attention implementation "eager" or "sdpa".

    Weights are drawn in float32 from ``case.weights_seed`` and then converted, so that they do not
    depend on dtype, batch, schedule or attention.  Models are kept and shared: never modify one.
    Raises Unsupported for a model that transformers does not have, ModelMismatch if what it built
    differs from ``case.model``.
    """
    return _build(case.model, case.vocab, case.weights_seed, case.dtype, attention)


@lru_cache(maxsize=256)
def _build(model: Model, vocab: int, seed: int, dtype: str, attention: str) -> Any:
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM

    config = config_for(model, vocab)
    if not getattr(MODEL_FOR_CAUSAL_LM_MAPPING[type(config)], f"_supports_{attention}", True):
        raise Unsupported(f"transformers refuses {attention} attention for {model.family}")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        built = AutoModelForCausalLM.from_config(
            config,
            attn_implementation=attention,
            experts_implementation="eager",  # the default, grouped products, has no float64
            dtype=torch.float32,
        )
        if FAMILIES[model.family].unscaled:
            for layer in built.model.layers:
                layer.self_attn.q_norm.weight /= layer.self_attn.head_dim**0.5
    check_geometry(built, model)
    return _converted(built, getattr(torch, dtype)).eval().requires_grad_(False)


def _converted(built: Any, dtype: torch.dtype) -> Any:
    """The model in `dtype`, as `from_pretrained` loads it.

    In half precision the rotary frequencies and other buffers stay in float32.
    """
    if dtype == torch.float64:
        return built.double()
    for parameter in built.parameters():
        parameter.data = parameter.data.to(dtype)
    return built


def config_for(model: Model, vocab: int) -> Any:
    """The transformers config of a model of the table.  Raises Unsupported where there is none."""
    import transformers

    family = _family(model)
    fields = {**common_fields(family, model, vocab), **family.fields(model)}
    config = getattr(transformers, family.config)(**fields)
    if "layer_types" in fields:
        # Set again once built: Gemma 4 makes the last layer full, whatever it is given.
        config.layer_types = list(model.layer_types)
    return config


def _family(model: Model) -> Family:
    family = FAMILIES.get(model.family)
    if family is None:
        raise Unsupported(f"no transformers configuration for {model.family}")
    if model.sink:
        raise Unsupported("transformers has no cache with sinks")
    local = set(model.layer_types) - {"full_attention"}
    if local - {family.local}:
        raise Unsupported(f"transformers' {family.config} has no {local.pop()} layers")
    return family


def check_geometry(built: Any, model: Model) -> None:
    """Raise ModelMismatch unless every built layer and its cache are as in the table."""
    from transformers import DynamicCache

    attentions = [layer.self_attn for layer in built.model.layers]
    caches = DynamicCache(config=built.config).layers
    if not len(attentions) == len(caches) == model.n_layers:
        raise ModelMismatch(
            f"{model.name} has {len(attentions)} layers and {len(caches)} caches, not "
            f"{model.n_layers}"
        )
    kinds = getattr(built.config, "layer_types", None) or model.layer_types
    for i, (attention, cache, kind) in enumerate(zip(attentions, caches, kinds, strict=True)):
        have, want = _geometry(attention, cache, kind), _expected(model, i)
        if have != want:
            raise ModelMismatch(f"layer {i} of {model.name} is {have}, not {want}")


def _geometry(attention: Any, cache: Any, kind: str) -> dict[str, object]:
    head_dim = attention.head_dim
    key = getattr(attention, "k_proj", None)
    return {
        "kind": kind,
        "head_dim": head_dim,
        "heads": attention.q_proj.out_features // head_dim,
        "kv heads": key.out_features // head_dim if key is not None else None,
        "slots": getattr(cache, "sliding_window", None),
    }


def _expected(model: Model, i: int) -> dict[str, object]:
    owns = i in model.cached_layers
    law = model.layers[i]
    return {
        "kind": model.layer_types[i],
        "head_dim": model.layer_head_dim(i),
        "heads": model.n_heads,
        "kv heads": model.layer_kv_heads(i) if owns else None,
        "slots": (law.window or law.chunk) if owns else None,
    }


def dense(built: Any, tokens: Tensor, layers: Sequence[Layer]) -> Tensor:
    """tokens (B, n) -> logits (B, n, V): no cache, and each layer's mask from its law alone."""
    with _masks(built, tokens.shape[1], layers):
        return call(built, tokens, use_cache=False)


def call(built: Any, tokens: Tensor, **kwargs: Any) -> Tensor:
    """tokens (B, t) -> logits (B, t, V), by the model's forward."""
    with torch.no_grad(), in_full_precision(built.dtype):
        logits: Tensor = built(tokens, **kwargs).logits
    return logits


@contextmanager
def _masks(built: Any, n: int, layers: Sequence[Layer]) -> Iterator[None]:
    """Give each attention layer the additive mask (1, 1, n, n) of its law, not the model's own.

    In eager and sdpa attention only the mask decides: both ignore the window that the module also
    passes to them.
    """
    blocked = torch.tensor(-torch.inf, dtype=built.dtype)
    additive = {
        law: torch.where(law.mask(0, n, n), blocked.new_zeros(()), blocked)[None, None]
        for law in set(layers)
    }
    handles = [
        layer.self_attn.register_forward_pre_hook(_replace_mask(additive[law]), with_kwargs=True)
        for layer, law in zip(built.model.layers, layers, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _replace_mask(mask: Tensor) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if "attention_mask" not in kwargs:
            raise ModelMismatch(f"{type(module).__name__} is not passed an attention_mask")
        return args, {**kwargs, "attention_mask": mask}

    return hook
