"""Sliced-Q as a torch operation: attention one piece of the query at a time, eager and exported.

    out = sliced_attention(q, k, v, mask)

It takes the same steps as the graph pass for Core ML, and cuts a query of known length in the same
places.  An exported program holds each piece separately.  A query of dynamic length is cut only if
the declared range of the length begins at min_seq_length: `torch.export.Dim("L", min=1280)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import SymInt, Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true

from harness.schemes.sliced_q.chunks import split

MIN_STATIC = 64
MIN_DYNAMIC = 1280
DIVIDER = 16


def sliced_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    scale: float | None = None,
    min_seq_length: int | None = None,
    divider: int = DIVIDER,
) -> Tensor:
    """softmax(scale * q @ k^T + mask) @ v, with the scores of one piece of the query at a time.

    q (..., Hq, L, E); k (..., Hkv, S, E), v (..., Hkv, S, EV) with Hq % Hkv == 0, or all three with
    the same leading dimensions -> (..., Hq, L, EV).  mask: broadcasts to (..., Hq, L, S); bool
    (True = visible), or a float that is added to the scores, in the wider of the two types.
    scale: 1 / sqrt(E) by default.  min_seq_length: shortest query that is cut; by default 64, or
    1280 if the length is dynamic.  divider: number of pieces.

    A row whose mask hides every key is NaN: it has no right answer, and zeros would hide that.
    Raises ValueError, naming the argument, for shapes that do not fit, no keys at all, a mask of
    another type, a divider below 1, or a min_seq_length below 0.
    """
    _check(q, k, v, mask, min_seq_length, divider)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    if k.shape[:-2] != q.shape[:-2]:
        groups = q.shape[-3] // k.shape[-3]
        k, v = (x.repeat_interleave(groups, dim=-3) for x in (k, v))
    length = q.shape[-2]
    if isinstance(length, SymInt):
        least = max(MIN_DYNAMIC if min_seq_length is None else min_seq_length, divider)
        if statically_known_true(length >= least):
            return _by_number(q, k, v, mask, scale, divider)
        return _rows(q, k, v, mask, scale)
    if length < max(MIN_STATIC if min_seq_length is None else min_seq_length, 1):
        return _rows(q, k, v, mask, scale)
    spans = split(length, divider, *_known(k.shape[-2], v.shape[-1]))
    return _pieces(q, k, v, mask, scale, spans)


def _pieces(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    scale: float,
    spans: Sequence[tuple[int, int]],
) -> Tensor:
    out = []
    for start, end in spans:
        part = mask[..., start:end, :] if mask is not None and _per_row(mask) else mask
        out.append(_rows(q[..., start:end, :], k, v, part, scale))
    return torch.cat(out, -2)


def _rows(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """Attention of a few rows.

    The query is scaled, not the product, where the scale would come too late in half precision:
    products of large heads overflow even where the scaled scores do not.
    """
    scores = (q * scale) @ k.transpose(-1, -2)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, -math.inf)
    elif mask is not None:
        scores = scores + mask
    return torch.softmax(scores, -1).to(v.dtype) @ v


def _by_number(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, divider: int
) -> Tensor:
    """Attention in pieces of ceil(L / divider) rows, for a query of dynamic length L.

    Rows are selected by number, because the exporter demands proof of the bounds of a slice of
    dynamic length.  Rows past the end repeat the last one, and are dropped from the result.
    """
    length = q.shape[-2]
    size = (length + divider - 1) // divider
    out = []
    for i in range(divider):
        rows = torch.arange(size, device=q.device).add(size * i).clamp(max=length - 1)
        part = mask.index_select(-2, rows) if mask is not None and _per_row(mask) else mask
        out.append(_rows(q.index_select(-2, rows), k, v, part, scale))
    return torch.cat(out, -2).index_select(-2, torch.arange(length, device=q.device))


def _per_row(mask: Tensor) -> bool:
    return mask.dim() > 1 and mask.shape[-2] != 1


def _known(keys: int, width: int) -> tuple[int, int] | tuple[()]:
    """(keys, width), by which `split` levels pieces; empty if one is not known at export."""
    return () if isinstance(keys, SymInt) or isinstance(width, SymInt) else (keys, width)


def _check(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, min_length: int | None, divider: int
) -> None:
    if isinstance(divider, bool) or not isinstance(divider, int) or divider < 1:
        raise ValueError(f"divider must be an integer >= 1, got {divider!r}")
    whole = isinstance(min_length, int) and not isinstance(min_length, bool)
    if min_length is not None and (not whole or min_length < 0):
        raise ValueError(f"min_seq_length must be an integer >= 0 or None, got {min_length!r}")
    if q.dim() < 2 or not q.dim() == k.dim() == v.dim():
        raise ValueError(
            f"q, k, v must have one rank of 2 or more, got {q.dim()}, {k.dim()}, {v.dim()}"
        )
    if k.shape[:-1] != v.shape[:-1] or q.shape[-1] != k.shape[-1]:
        shapes = tuple(q.shape), tuple(k.shape), tuple(v.shape)
        raise ValueError(f"q, k, v do not fit each other: {shapes}")
    if k.shape[-2] == 0:
        raise ValueError(f"k must have at least one key, got {tuple(k.shape)}")
    same = q.shape[:-2] == k.shape[:-2]
    grouped = q.dim() > 3 and q.shape[:-3] == k.shape[:-3] and q.shape[-3] % k.shape[-3] == 0
    if not (same or grouped):
        raise ValueError(
            f"k {tuple(k.shape)} must have the leading dimensions of q {tuple(q.shape)}, "
            "or fewer heads that divide its heads"
        )
    if mask is not None and not (mask.dtype == torch.bool or mask.is_floating_point()):
        raise ValueError(f"mask must be bool or a float, got {mask.dtype}")
    scores = (*q.shape[:-1], k.shape[-2])
    if mask is not None and (
        mask.dim() > len(scores)
        or any(m not in (1, s) for m, s in zip(mask.shape[::-1], scores[::-1], strict=False))
    ):
        raise ValueError(f"mask {tuple(mask.shape)} does not broadcast to the scores {scores}")
