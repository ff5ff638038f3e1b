"""The band of blocks in half precision and in memory: within its margins, and linear."""

from __future__ import annotations

import math

import pytest
import torch
from band_inputs import gradients, inputs, relative, truth
from torch import Tensor

from harness.memory import measure, second_difference
from harness.reference import tolerance
from harness.schemes.band.blocks import Run, query_runs
from harness.schemes.band.kernel import banded
from harness.schemes.band.sizes import Sizes, block_sizes


def worst_row(got: Tensor, exact: Tensor) -> float:
    """Error of the worst row over the mean norm of the rows."""
    rows = exact.norm(dim=-1)
    return float((got.double() - exact).norm(dim=-1).max() / rows.square().mean().sqrt())


@pytest.mark.parametrize(
    ("heads", "window", "length"), [((2, 2), 64, 512), ((4, 2), 128, 1024), ((2, 1), 512, 1024)]
)
def test_bfloat16_is_within_the_margins_of_masked_sdpa(
    heads: tuple[int, int], window: int, length: int
) -> None:
    """Forward 2.5e-3, backward 3.5e-3 in relative norm: the limits that apply to routing.

    The same limits apply against float64 of the same rounded inputs.  If masked SDPA itself
    exceeds them (dk and dv of long windows), the limit is its error plus one more rounding, that of
    the sums over blocks; the squares of rounding errors add up.  The error of the worst row is at
    most `tolerance.SAMPLE` times that of masked SDPA.
    """
    forward, backward = 2.5e-3, 3.5e-3
    q, k, v, grad = (t.to(torch.bfloat16) for t in inputs(1, *heads, length, length, 256))
    exact, exact_grads, mask = truth(q, k, v, grad, window)
    out, grads = gradients(q, k, v, grad, window)
    leaves = [t.detach().clone().requires_grad_(True) for t in (q, k, v)]
    repeated = [t.repeat_interleave(heads[0] // heads[1], 1) for t in leaves[1:]]
    masked = torch.nn.functional.scaled_dot_product_attention(
        leaves[0], repeated[0], repeated[1], attn_mask=mask
    )
    masked_grads = torch.autograd.grad(masked, leaves, grad)
    pairs = [(out, masked.detach(), exact, forward)]
    pairs += [(*t, backward) for t in zip(grads, masked_grads, exact_grads, strict=True)]
    for got, sdpa, true, limit in pairs:
        assert relative(got, sdpa.double()) <= limit
        rounding = relative(true.to(torch.bfloat16), true)
        assert relative(got, true) <= max(limit, math.hypot(relative(sdpa, true), rounding))
        assert worst_row(got, true) <= tolerance.SAMPLE * worst_row(sdpa, true)


LENGTHS = (2048, 3072, 4096)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("heads", [(2, 2), (4, 1)], ids=str)
def test_memory_is_linear_in_the_length(heads: tuple[int, int], *, backward: bool) -> None:
    """Peak bytes lie on a line: not a byte for each pair of positions, as masked SDPA needs."""

    def peak(n: int) -> int:
        q, k, v, grad = (t.float() for t in inputs(1, *heads, n, n))
        q, k, v = (t.requires_grad_(backward) for t in (q, k, v))

        def step() -> None:
            out = banded(q, k, v, 192)
            if backward:
                torch.autograd.grad(out, (q, k, v), grad)

        return measure(step).peak_bytes

    peaks = [peak(n) for n in LENGTHS]
    assert second_difference(*peaks) == 0
    n, item = LENGTHS[-1], 4
    # Besides bytes in proportion to the inputs there are those of the blocks of one call.
    assert peaks[-1] < n * n * item


def test_block_sizes_follow_the_window_and_the_groups() -> None:
    assert block_sizes(1024, 1, torch.float32) == Sizes(192, 128)
    assert block_sizes(1024, 2, torch.bfloat16) == Sizes(96, 192)
    assert block_sizes(512, 2, torch.float16) == Sizes(96, 257)
    assert block_sizes(128, 4, torch.float16) == Sizes(96, 128)
    assert block_sizes(1, 8, torch.float32) == Sizes(64, 64)


def test_runs_join_equal_rectangles_alone() -> None:
    runs = query_runs(40, 40, 8, 8, 3)
    assert [run.count for run in runs] == [1, 3, 1]
    assert runs[1] == Run(8, 8, 0, 16, 8, 8, 3)  # from an even key on
    assert [run.count for run in query_runs(42, 42, 8, 7, 3)] == [1, 3, 2]


def test_rows_left_over_come_first_where_keys_are_few() -> None:
    first, *others = query_runs(44, 44, 8, 8)
    assert first == Run(0, 4, 0, 4, 0, 8)
    assert {run.n_queries for run in others} == {8}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"window": 0}, "window"),
        ({"window": True}, "window"),
        ({"sizes": Sizes(0, 4)}, "sizes.forward"),
        ({"sizes": Sizes(4, 0)}, "sizes.backward"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, object], says: str) -> None:
    q, k, v, _ = inputs(1, 2, 2, 10, 10)
    with pytest.raises(ValueError, match=says):
        banded(q, k, v, **{"window": 8, **change})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="q must have"):
        banded(q, k[:, :, :5], v[:, :, :5], 8)
