"""torch's scaled_dot_product_attention with an additive mask, as models have long called it."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.law import Layer
from harness.schemes.validation import check_attention


class SdpaMask:
    """PyTorch's scaled_dot_product_attention with an additive mask, shared by rows and heads.

    Hidden keys get the lowest finite number of the dtype.  Keys and values are repeated for the
    query heads that share them, as transformers does when it passes a mask.  This is the path that
    routing replaces.
    """

    name = "torch.sdpa_mask"
    suite = "fa2_routing"
    schemes = frozenset({"uniform"})

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        check_attention(q, k, v)
        n, keys = q.shape[2], k.shape[2]
        visible = layer.mask(keys - n, n, keys).to(q.device)
        mask = q.new_zeros(n, keys).masked_fill_(~visible, torch.finfo(q.dtype).min)
        groups = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        mask = mask.expand(q.shape[0], 1, n, keys)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
