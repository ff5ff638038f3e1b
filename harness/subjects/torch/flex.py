"""torch's flex_attention with the law as its mask function, uncompiled."""

from __future__ import annotations

import warnings

from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from harness.cases.case import Case
from harness.contract import Unsupported
from harness.law import Layer
from harness.results.finding import NAMES
from harness.schemes.validation import check_attention


class Flex:
    """`flex_attention` without a compiler: the same masks, computed densely.

    Compiling it for the CPU takes seconds per shape, too long for hundreds of cases.
    """

    name = "torch.flex"
    suite = "fa2_routing"
    schemes = frozenset({"uniform"})
    #: Not gradients: on the CPU flex_attention has none.  Not memory: it is dense here.
    checks = frozenset(NAMES) - {"gradients", "peak_bytes"}

    @staticmethod
    def covers(check: str, case: Case) -> bool:  # noqa: ARG004 - the contract's signature
        """One window is enough."""
        return case.model.name != "mistral-w9"

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        check_attention(q, k, v)
        if q.requires_grad and q.device.type == "cpu":
            raise Unsupported("flex_attention has no backward on the CPU")
        n, keys = q.shape[2], k.shape[2]
        visible = layer.mask(keys - n, n, keys).to(q.device)

        def sees(b: Tensor, h: Tensor, row: Tensor, column: Tensor) -> Tensor:
            del b, h
            return visible[row, column]

        mask = create_block_mask(sees, None, None, n, keys, device=str(q.device))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*without torch.compile.*")
            out = flex_attention(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
        assert isinstance(out, Tensor)  # a tuple only where the logsumexp is asked for
        return out
