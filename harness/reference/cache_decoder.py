"""The small decoder around a cache under test, and what a cache's answers must look like."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.contract import CacheShape, CacheSubject, ContractError, LayerCache
from harness.law import Layer
from harness.reference import oracle
from harness.reference.decoder import check_tokens, dense_logits, forward, make_weights

_CPU = torch.device("cpu")


class CacheDecoder:
    """A `Decoder` made of `harness.reference.decoder` and the caches of a `CacheSubject`."""

    def __init__(self, subject: CacheSubject, case: Case, device: torch.device = _CPU) -> None:
        dtype = getattr(torch, case.dtype)
        self.case, self.model, self.device = case, case.model, device
        self.weights = make_weights(case.model, case.vocab, case.weights_seed).to(dtype, device)
        self.caches: dict[int, LayerCache] = {
            i: subject.new_cache(case.model.layers[i], cache_shape(case, i, device))
            for i in case.model.cached_layers
        }
        for cache in self.caches.values():
            require_cache(cache)
        self.length = 0

    def feed(self, tokens: Tensor) -> Tensor:
        check_tokens(tokens, self.case.batch, self.case.vocab)
        t = tokens.shape[1]
        returned: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

        def attend(i: int, q: Tensor, k: Tensor | None, v: Tensor | None) -> Tensor:
            if k is not None and v is not None:
                returned[i] = checked_update(self.caches[i], k, v)
            return oracle.attention(q, *returned[self.model.kv_sources[i]])

        at = torch.arange(self.length, self.length + t, device=self.device)
        logits = forward(self.weights, tokens.to(self.device), at, attend)
        self.length += t
        return logits

    def reset(self) -> None:
        for cache in self.caches.values():
            cache.reset()
        self.length = 0

    def rewind(self, length: int) -> None:
        # Bounded layers first: they may refuse, and nothing must have changed by then.
        order = sorted(self.caches, key=lambda i: not self.model.layers[i].bounded)
        for cache in (self.caches[i] for i in order):
            cache.rewind(length)  # type: ignore[attr-defined]  # optional member of the contract
        self.length = length

    def cache_bytes(self) -> list[int]:
        return [
            checked_nbytes(self.caches[i]) if i in self.caches else 0
            for i in range(self.model.n_layers)
        ]

    def dense(
        self,
        tokens: Tensor,
        layers: Sequence[Layer] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        return dense_logits(self.weights, tokens, layers, positions)


def cache_shape(case: Case, layer: int, device: torch.device = _CPU) -> CacheShape:
    """The shape of one layer's cache under a case."""
    return CacheShape(
        batch=case.batch,
        n_kv_heads=case.model.layer_kv_heads(layer),
        head_dim=case.model.layer_head_dim(layer),
        max_context=case.max_context,
        max_chunk=case.max_chunk,
        dtype=getattr(torch, case.dtype),
        device=device,
    )


def require_cache(cache: object) -> None:
    """Raise ContractError for what is no cache: `new_cache` may lack its `return`."""
    missing = [m for m in ("update", "reset", "nbytes") if not callable(getattr(cache, m, None))]
    if missing:
        raise ContractError(
            "new_cache() must return a cache with update(k, v), reset() and nbytes(), got "
            f"{type(cache).__name__} without {', '.join(missing)}"
        )


def checked_nbytes(cache: LayerCache) -> int:
    """`cache.nbytes()`.  Raises ContractError for anything but a count."""
    said = cache.nbytes()
    if isinstance(said, bool) or not isinstance(said, Integral):
        raise ContractError(f"nbytes() must return an int, got {type(said).__name__}")
    return int(said)


def checked_update(cache: LayerCache, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Call `cache.update`, and check its answer against the contract.

    Raises ContractError naming what was returned and what is allowed.
    """
    require_cache(cache)
    answer = cache.update(k, v)
    if not (isinstance(answer, tuple) and len(answer) == 3):
        raise ContractError(
            f"update() must return (keys, values, mask), got {type(answer).__name__}"
        )
    keys, values, mask = answer
    batch, heads, t, head_dim = k.shape
    for name, x in (("keys", keys), ("values", values)):
        if (
            not isinstance(x, Tensor)
            or x.dim() != 4
            or ((x.shape[0], x.shape[1], x.shape[3]) != (batch, heads, head_dim))
        ):
            shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
            raise ContractError(
                f"update() must return {name} ({batch}, {heads}, n, {head_dim}), got {shape}"
            )
    n = keys.shape[2]
    allowed = ((t, n), (batch, 1, t, n), (1, 1, t, n))
    if values.shape != keys.shape:
        raise ContractError(
            f"update() returned values {tuple(values.shape)} for keys {tuple(keys.shape)}"
        )
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool or tuple(mask.shape) not in allowed:
        got = f"{mask.dtype} {tuple(mask.shape)}" if isinstance(mask, Tensor) else type(mask)
        raise ContractError(
            f"update() must return a bool mask {allowed[0]} or {allowed[1]}, got {got}"
        )
    if keys.dtype != k.dtype or values.dtype != v.dtype:
        raise ContractError(f"update() took {k.dtype} and returned {keys.dtype}, {values.dtype}")
    if not keys.device == values.device == mask.device == k.device:
        got = f"{keys.device}, {values.device} and a mask on {mask.device}"
        raise ContractError(f"update() took keys on {k.device} and returned {got}")
    blind = (~mask.any(-1)).nonzero()
    if len(blind):
        # A query always sees its own key; one that sees none has no answer but NaN.
        raise ContractError(
            f"update() returned a mask that leaves query {int(blind[0][-1])} of {t} no key"
        )
    return keys, values, mask
