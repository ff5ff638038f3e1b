"""Kernels for matrix products, convolution and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from harness.mil.errors import MilError
from harness.mil.kernels import kernel


@kernel("matmul")
def matmul(
    x: Tensor, y: Tensor, transpose_x: object = False, transpose_y: object = False
) -> Tensor:
    """x @ y, over broadcast leading axes.

    transpose_x, transpose_y: swap the last two axes of x, of y first.
    """
    x = x.transpose(-1, -2) if bool(transpose_x) else x
    y = y.transpose(-1, -2) if bool(transpose_y) else y
    return x @ y


@kernel("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (…, in) @ weight (out, in).T + bias (out,)."""
    return functional.linear(x, weight, bias)


@kernel("einsum")
def einsum(values: Sequence[Tensor], equation: str) -> Tensor:
    """The Einstein sum of some tensors."""
    return torch.einsum(equation, *values)


@kernel("conv")
def conv(
    x: Tensor,
    weight: Tensor,
    strides: Tensor | None = None,
    pad_type: str = "valid",
    pad: Tensor | None = None,
    dilations: Tensor | None = None,
    groups: object = 1,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolution of x (B, C, …) in 1 to 3 dimensions; with a kernel of 1, a linear layer.

    Raises MilError for the pad types "same" and "same_lower", which no decoder uses.
    """
    n = x.dim() - 2
    if pad_type not in ("valid", "custom"):
        raise MilError(f"conv: pad_type must be valid or custom, got {pad_type!r}")
    if pad is not None and pad_type == "custom":
        around = pad.reshape(n, 2).flip(0).flatten().tolist()  # torch pads the last axis first
        x = functional.pad(x, around)
    run = (functional.conv1d, functional.conv2d, functional.conv3d)[n - 1]
    return run(
        x,
        weight,
        bias,
        stride=[1] * n if strides is None else strides.tolist(),
        dilation=[1] * n if dilations is None else dilations.tolist(),
        groups=int(groups),  # type: ignore[call-overload]  # a tensor of rank 0
    )


@kernel("scaled_dot_product_attention")
def scaled_dot_product_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None
) -> Tensor:
    """softmax(q k^T / sqrt(E) + mask) v, as the op is documented; in a bool mask, True = visible.

    A row without any visible key is NaN, as it is by the formula (torch's own op answers 0).
    Computes one head at a time, so that only the scores of one head are held in memory.
    """
    q, k, v = query.flatten(0, -3), key.flatten(0, -3), value.flatten(0, -3)
    scale = 1 / math.sqrt(query.shape[-1])
    bias = _heads_of(attn_mask, query, key)
    out = query.new_empty(*q.shape[:2], v.shape[-1])
    for i in range(q.shape[0]):
        scores = (q[i] @ k[i].transpose(0, 1)).mul_(scale)
        if bias is not None:
            b = bias[i]
            if b.dtype == torch.bool:
                scores.masked_fill_(~b, -math.inf)
            else:
                scores += b
        torch.mm(torch.softmax(scores, -1), v[i], out=out[i])
    return torch.unflatten(out, 0, query.shape[:-2])


def _heads_of(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor | None:
    """The mask as (heads, L, S); no copy is made if all heads share one mask."""
    if mask is None:
        return None
    full = mask.expand(*query.shape[:-1], key.shape[-2])
    if mask.dim() <= 2 or math.prod(mask.shape[:-2]) == 1:
        one = mask.reshape(mask.shape[-2:] if mask.dim() > 1 else (1, -1))
        return one.expand(math.prod(query.shape[:-2]), *full.shape[-2:])
    return full.flatten(0, -3)
