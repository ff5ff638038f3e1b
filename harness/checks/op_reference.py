"""The oracle of a single layer: exact rows and their bound, from inputs and a mask."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.reference import oracle, tolerance


@dataclass(frozen=True)
class OpReference:
    """exact (B, Hq, t, D) in float64; bound (t,): what each row may be off by.

    magnitude (B, Hq, t, D): the sums of `exact` with their signs dropped.
    """

    exact: Tensor
    bound: Tensor
    magnitude: Tensor | None = None


def op_reference(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, stored: torch.dtype | None = None
) -> OpReference:
    """What one attention layer must answer, and how far off it may be.

    q (B, Hq, t, D); k, v (B, Hkv, n, D); mask bool (t, n).  The bound is that of `q`'s dtype:
    what rounding the inputs cost is nobody's error, for the oracle starts from rounded ones.
    stored: the dtype in which a cache holds keys and values, where that is a coarser one.
    """
    exact = oracle.attention64(q, k, v, mask)
    held = (k, v) if stored is None else (k.to(stored).to(q.dtype), v.to(stored).to(q.dtype))
    own = oracle.attention(q, *held, mask)
    summed = oracle.attention64(q, k, v.abs(), mask)
    bound = tolerance.row_bound(own, exact, mask.sum(-1), q.shape[-1], 1, summed)
    return OpReference(exact, bound, summed)
