"""Flash attention 2 with a window on a GPU, by torch: accuracy, memory, the router's choice."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from harness.law import Layer
from harness.memory import measure, second_difference
from harness.reference import oracle
from harness.schemes.band.backends import TorchFlash
from harness.schemes.band.decisions import Reason
from harness.schemes.band.routing import Router
from harness.subjects.own.routed import LayerModule, original

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

HEADS, KV_HEADS, HEAD_DIM, WINDOW = 4, 2, 256, 256
#: How far routing may move a layer's outputs and gradients in bfloat16, in relative norm.  Rounding
#: normally distributed numbers to 8 bits errs by 1.66e-3 of their norm.  The outputs of two kernels
#: differ by two such errors, one each: 1.66e-3 * sqrt(2) = 2.35e-3; their gradients, for which the
#: weights are rounded too, by four: 1.66e-3 * sqrt(4) = 3.32e-3.  The limits are these, rounded up.
FORWARD, BACKWARD = 2.5e-3, 3.5e-3


def inputs(length: int) -> list[Tensor]:
    """q, k, v and the output's gradient, bfloat16 on the GPU."""
    g = torch.Generator().manual_seed(0)
    heads = (HEADS, KV_HEADS, KV_HEADS, HEADS)
    made = [torch.randn(1, h, length, HEAD_DIM, generator=g) for h in heads]
    return [x.to("cuda", torch.bfloat16) for x in made]


def relative(got: Tensor, exact: Tensor) -> float:
    return float((got.double() - exact).norm() / exact.norm())


def test_forward_and_backward_at_head_dim_256() -> None:
    q, k, v, grad = inputs(1024)
    mask = Layer(window=WINDOW).mask(0, 1024, 1024).cuda()
    exact = [oracle.attention(*(x.double() for x in (q, k, v)), mask)]
    exact += oracle.attention_gradients(*(x.double() for x in (q, k, v)), mask, grad.double())

    def masked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = (x.repeat_interleave(HEADS // KV_HEADS, 1) for x in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return TorchFlash()(q, k, v, WINDOW, HEAD_DIM**-0.5)

    found = []
    for function in (flash, masked):
        leaves = [x.detach().clone().requires_grad_(True) for x in (q, k, v)]
        out = function(*leaves)
        found.append([out.detach(), *torch.autograd.grad(out, leaves, grad)])
    limits = (FORWARD, BACKWARD, BACKWARD, BACKWARD)
    for got, sdpa, true, limit in zip(*found, exact, limits, strict=True):
        assert relative(got, sdpa.double()) <= limit
        rounding = relative(true.to(torch.bfloat16), true)
        assert relative(got, true) <= max(limit, math.hypot(relative(sdpa, true), rounding))


def test_the_router_takes_torchs_flash_attention_where_flash_attn_is_absent() -> None:
    q, k, v, _ = inputs(1024)
    mask = Layer(window=WINDOW).mask(0, 1024, 1024).cuda()[None, None]
    router = Router(original(), [TorchFlash()])
    module = LayerModule(HEADS // KV_HEADS, WINDOW)
    got, _ = router(module, q, k, v, mask, sliding_window=WINDOW)
    assert router.decisions.by_reason() == {Reason.ROUTED: 1}
    want, _ = router.original(module, q, k, v, mask)
    assert relative(got, want.double()) <= FORWARD


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_memory_is_linear_in_the_length(*, backward: bool) -> None:
    def peak(length: int) -> int:
        q, k, v, grad = inputs(length)
        q, k, v = (x.requires_grad_(backward) for x in (q, k, v))

        def step() -> None:
            out = TorchFlash()(q, k, v, WINDOW, HEAD_DIM**-0.5)
            if backward:
                torch.autograd.grad(out, (q, k, v), grad)

        return measure(step, device="cuda").peak_bytes

    assert second_difference(*(peak(n) for n in (1024, 2048, 3072))) == 0
