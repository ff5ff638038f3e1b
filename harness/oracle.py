"""The dense reference: float64 attention, masks from the law and nothing else."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Softmax attention written out, in the dtype of its inputs.

    q (B, Hq, t, D); k, v (B, Hkv, n, D) with Hq % Hkv == 0; mask bool (t, n) or (B, 1, t, n),
    True = visible.  Returns (B, Hq, t, D).  A query that sees nothing gives NaN, on purpose: it
    has no right answer, and zeros would hide that.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    weights = torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1)
    return weights @ v


def attention64(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """`attention` in float64: the truth against which a row is measured."""
    return attention(q.double(), k.double(), v.double(), mask)


def attention_gradients(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(dq, dk, dv) of `attention` in the dtype of the inputs, for the output gradient given."""
    leaves = [x.detach().clone().requires_grad_(True) for x in (q, k, v)]
    out = attention(leaves[0], leaves[1], leaves[2], mask)
    dq, dk, dv = torch.autograd.grad(out, leaves, grad_out)
    return dq, dk, dv
