"""The input checks that all schemes share: bad input never reaches a cache.

Each function raises ValueError (TypeError for something that is not a tensor) before any state has
changed.  The message names the field, the value and what is allowed.
"""

from __future__ import annotations

import torch
from torch import Tensor

from harness.contract import CacheShape
from harness.law import check_int


def check_kv(k: object, v: object, shape: CacheShape) -> int:
    """The number t >= 1 of new positions in k, v (B, Hkv, t, D), which must fit `shape`."""
    t = _check_states("k", k, shape)
    if _check_states("v", v, shape) != t:
        raise ValueError(f"k and v must have the same length, got {t} and {_length(v)}")
    return t


def check_context(start: int, t: int, limit: int, field: str = "max_context") -> None:
    """Check that positions start … start + t - 1 fit into `limit`."""
    if start + t > limit:
        raise ValueError(
            f"{t} tokens at position {start} end past {field}={limit}; at most "
            f"{max(0, limit - start)} more are allowed"
        )


def check_tokens(tokens: object, batch: int, vocab: int) -> Tensor:
    """Return `tokens` if they are (B, t) int64 with t >= 1 and every id in 0 … vocab - 1."""
    if not isinstance(tokens, Tensor):
        raise TypeError(f"tokens must be a tensor (batch, t), got {type(tokens).__name__}")
    if tokens.dim() != 2 or tokens.shape[0] != batch or tokens.shape[1] < 1:
        raise ValueError(f"tokens must be ({batch}, t >= 1), got {tuple(tokens.shape)}")
    if tokens.dtype != torch.int64:
        raise ValueError(f"tokens must be torch.int64, got {tokens.dtype}")
    low, high = (int(x) for x in tokens.aminmax())
    if low < 0 or high >= vocab:
        raise ValueError(f"token ids must lie in 0 … {vocab - 1}, got {low if low < 0 else high}")
    return tokens


def check_rewind(target: object, length: int) -> int:
    """Return `target` if it is a position that has been reached: 0 <= target <= length."""
    target = check_int("rewind length", target, 0)
    if target > length:
        raise ValueError(f"rewind length must be at most the {length} positions held, got {target}")
    return target


def check_attention(q: Tensor, k: Tensor, v: Tensor) -> None:
    """Check q (B, Hq, Sq, D), k, v (B, Hkv, Sk, D): one dtype, Hq % Hkv == 0, 1 <= Sq <= Sk."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
        if x.dim() != 4:
            raise ValueError(f"{name} must be (batch, heads, length, head_dim), got {_dims(x)}")
    if k.shape != v.shape:
        raise ValueError(f"k and v must have the same shape, got {_dims(k)} and {_dims(v)}")
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(f"q, k, v must have one dtype, got {q.dtype}, {k.dtype}, {v.dtype}")
    if q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(f"q and k must agree in batch and head_dim, got {_dims(q)}, {_dims(k)}")
    if q.shape[1] % k.shape[1]:
        raise ValueError(f"q heads must be a multiple of kv heads, got {q.shape[1]}, {k.shape[1]}")
    if not 1 <= q.shape[2] <= k.shape[2]:
        raise ValueError(f"q must have 1 … {k.shape[2]} positions, got {q.shape[2]}")


def _check_states(name: str, x: object, shape: CacheShape) -> int:
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(x).__name__}")
    want = (shape.batch, shape.n_kv_heads, shape.head_dim)
    if x.dim() != 4 or (x.shape[0], x.shape[1], x.shape[3]) != want or x.shape[2] < 1:
        raise ValueError(
            f"{name} must be ({want[0]}, {want[1]}, t >= 1, {want[2]}), got {_dims(x)}"
        )
    if x.dtype != shape.dtype:
        raise ValueError(f"{name} must be {shape.dtype}, got {x.dtype}")
    if x.device.type != shape.device.type:
        raise ValueError(f"{name} must be on {shape.device}, got {x.device}")
    return x.shape[2]


def _length(x: object) -> int:
    return x.shape[2] if isinstance(x, Tensor) else 0


def _dims(x: Tensor) -> tuple[int, ...]:
    return tuple(x.shape)
