"""torch's scaled_dot_product_attention with an additive mask, as models have long handed it."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.law import Layer
from harness.schemes.validation import check_attention


class SdpaMask:
    """The lowest finite number of the dtype for what is hidden; one mask for all rows and heads.

    Keys and values are repeated for the query heads that share them, as transformers does where a
    mask is given.  What the routed path replaces.
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
