"""The dense reference: attention in float64, with masks from the law alone."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, masked: float = -math.inf) -> Tensor:
    """Softmax attention written out, in the dtype of its inputs.

    q (B, Hq, t, D); k, v (B, Hkv, n, D) with Hq % Hkv == 0; mask bool (t, n) or (B, 1, t, n),
    True = visible.  Returns (B, Hq, t, D).  A query that sees nothing gives NaN, on purpose: it
    has no right answer, and zeros would hide that.  masked: the score of a key that is not seen.
    """
    groups = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    weights = torch.softmax(scores.masked_fill(~mask, masked), dim=-1)
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


def gradient_magnitudes(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor, grad_out: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The sums (dq, dk, dv) with all their terms made positive: float64, shaped like q, k, v.

    The softmax's gradient is a difference, P * (dP - sum(P * dP)), that cancels to nothing for a
    query with one key.  Its rounding error is that of the terms, however little is left of them.
    """
    q, k, v, grad = (x.detach().double() for x in (q, k, v, grad_out))
    groups, width = q.shape[1] // k.shape[1], math.sqrt(q.shape[-1])
    keys, values = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    scores = (q @ keys.transpose(-1, -2) / width).masked_fill(~mask, -math.inf)
    weights = torch.softmax(scores, dim=-1)
    d_weights = grad.abs() @ values.abs().transpose(-1, -2)
    d_scores = weights * (d_weights + (weights * d_weights).sum(-1, keepdim=True)) / width
    dk, dv = d_scores.transpose(-1, -2) @ q.abs(), weights.transpose(-1, -2) @ grad.abs()
    shared = [x.reshape(x.shape[0], -1, groups, *x.shape[2:]).sum(2) for x in (dk, dv)]
    return d_scores @ keys.abs(), shared[0], shared[1]
