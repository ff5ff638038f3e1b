"""What the ExecuTorch subjects share: the released Llama transformer, its weights, its dense run.

All of them run `executorch.examples.models.llama`, the transformer that ExecuTorch's own export
scripts build.  executorch is imported only inside functions, on first use.
"""

from __future__ import annotations

import logging
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

#: Fewest positions for which a dense model's rotary angles and causal mask are built.
MIN_TABLE = 512

#: Loggers that report, on import, optional GPU kernels of torchao that cannot be loaded here.
_NOISY = ("torchao", "torch.utils._pytree")


@contextmanager
def quiet_import() -> Iterator[None]:
    """Hide what importing executorch logs about kernels that no check here uses."""
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def fits(model: Model) -> bool:
    """True for a geometry that the released transformer can take."""
    return not (model.n_shared or model.global_head_dim or model.global_kv_heads)


def claim_geometry(model: Model) -> None:
    """Raise Unsupported for a geometry that the released transformer cannot take."""
    if model.n_shared:
        raise Unsupported(
            f"{model.name}: the last {model.n_shared} layers share caches by layer type; "
            "ModelArgs.num_kv_shared_layers lets all of them read the one layer before them"
        )
    if model.global_head_dim or model.global_kv_heads:
        raise Unsupported(
            f"{model.name}: full layers have a head_dim or KV heads of their own; "
            "ModelArgs.head_dim and n_kv_heads are one number for all layers"
        )
    if model.n_heads is None:
        raise Unsupported(f"{model.name}: n_heads is not known; take its tiny() version")


def model_args(model: Model, vocab: int, max_context: int, **more: Any) -> Any:
    """The release's ModelArgs for `model`; `more` overrides fields.

    The rotary embedding has Hugging Face's layout: the release computes it in the model's dtype,
    unlike the other layout, so cached and dense runs round alike.
    """
    with quiet_import():
        from executorch.examples.models.llama.model_args import ModelArgs

    dim = (model.n_heads or 1) * model.head_dim
    fields: dict[str, Any] = {
        "dim": dim,
        "n_layers": model.n_layers,
        "n_heads": model.n_heads,
        "n_kv_heads": model.n_kv_heads,
        "head_dim": model.head_dim,
        "vocab_size": vocab,
        "hidden_dim": 2 * dim,
        "max_seq_len": max_context,
        "max_context_len": max_context,
        "generate_full_logits": True,
        "use_hf_rope": True,
    }
    return ModelArgs(**(fields | more))


def construct(args: Any) -> Any:
    """The release's transformer in eval mode, with its initial weights."""
    with quiet_import():
        from executorch.examples.models.llama.llama_transformer import construct_transformer

    return construct_transformer(args).eval().requires_grad_(False)


def table_length(n: int) -> int:
    """A table length of at least n positions; lengths are few, so that models are reused."""
    return max(MIN_TABLE, 1 << (n - 1).bit_length())


@lru_cache(maxsize=64)
def dense_model(model: Model, vocab: int, seed: int, dtype: str, table: int) -> Any:
    """The transformer without a cache, for `table` positions; shared between cases."""
    transformer = construct(model_args(model, vocab, table))
    for block in transformer.layers:  # every dense run sets its own masks: no need to keep these
        block.attention.mask = torch.ones(1, 1, dtype=torch.bool)
    _fill(transformer, seed)
    return in_precision(transformer, dtype)


def _fill(transformer: nn.Module, seed: int) -> None:
    """Set all weights from a seed, so that scores and logits have a standard deviation near 1.

    They are rounded to values that both half precisions can hold, so that the model is the same in
    every dtype and a half-precision run differs from float64 only by its arithmetic.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weight in transformer.named_parameters():
        noise = torch.randn(weight.shape, generator=generator)
        if weight.dim() == 1:
            noise = 1 + noise / 10
        elif not name.startswith("tok_embeddings"):
            noise = noise / weight.shape[1] ** 0.5
        weight.data.copy_(noise.bfloat16().half().float())


def in_precision(transformer: nn.Module, dtype: str) -> nn.Module:
    """Cast to a dtype, in place.  For float64 the norms become torch's, which stay in float64.

    The release's RMSNorm computes in float32 whatever its input is.  No user runs float64: it is
    the reference for the other dtypes, and must not carry float32's rounding.
    """
    transformer.to(getattr(torch, dtype))
    if dtype == "float64":
        from executorch.examples.models.llama.norm import RMSNorm

        for parent in list(transformer.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, RMSNorm):
                    setattr(parent, name, _float64_norm(child))
    return transformer


def _float64_norm(norm: Any) -> nn.RMSNorm:
    exact = nn.RMSNorm(norm.weight.numel(), eps=norm.eps)
    exact.weight = norm.weight
    return exact


def load_weights(transformer: nn.Module, case: Case) -> nn.Module:
    """Give a transformer with caches the weights of the dense one, shared, not copied.

    Raises RuntimeError if they do not fit.
    """
    dense = dense_model(case.model, case.vocab, case.weights_seed, case.dtype, MIN_TABLE)
    weights = dense.state_dict()
    result = transformer.load_state_dict(weights, strict=False, assign=True)
    if result.unexpected_keys or any("cache" not in key for key in result.missing_keys):
        raise RuntimeError(f"weights do not fit the transformer: {result}")
    return transformer.requires_grad_(False)


def law_masks(layers: Sequence[Layer], n: int) -> list[Tensor]:
    """One bool (n, n) mask per layer, from the law."""
    return [layer.mask(0, n, n) for layer in layers]


@torch.no_grad()
def dense_logits(case: Case, tokens: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """tokens (B, n) -> logits (B, n, V) of the release without a cache, one mask per layer."""
    table = table_length(tokens.shape[1])
    transformer = dense_model(case.model, case.vocab, case.weights_seed, case.dtype, table)
    for block, mask in zip(transformer.layers, masks, strict=True):
        block.attention.mask = mask
    logits: Tensor = transformer(tokens)
    return logits


def kv_bytes(case: Case, slots: int) -> int:
    """Bytes of one layer's keys and values in `slots` slots."""
    element = torch.finfo(getattr(torch, case.dtype)).bits // 8
    return 2 * case.batch * case.model.n_kv_heads * slots * case.model.head_dim * element
