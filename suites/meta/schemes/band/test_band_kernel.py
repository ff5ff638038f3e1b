"""The band of blocks: every block size and shape, gradients, memory, half precision, refusals."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.law import Layer
from harness.memory import measure, second_difference
from harness.reference import oracle, tolerance
from harness.schemes.band import kernel as band_kernel
from harness.schemes.band.blocks import BandMasks, Run, key_runs, query_runs
from harness.schemes.band.engines import Dense, Engine, FlashCpu, Rows
from harness.schemes.band.kernel import banded
from harness.schemes.band.sizes import Sizes, block_sizes

LAW = "the law, from the mask of every rectangle put back into its place"


def inputs(
    batch: int, heads: int, kv_heads: int, n: int, keys: int, width: int = 16, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and the gradient of the output, in float64."""
    g = torch.Generator().manual_seed(seed)
    shapes = ((heads, n), (kv_heads, keys), (kv_heads, keys), (heads, n))
    made = [torch.randn(batch, h, s, width, generator=g, dtype=torch.float64) for h, s in shapes]
    return made[0], made[1], made[2], made[3]


def gradients(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, window: int, sizes: Sizes | None = None
) -> tuple[Tensor, tuple[Tensor, ...]]:
    leaves = [x.detach().clone().requires_grad_(True) for x in (q, k, v)]
    out = banded(leaves[0], leaves[1], leaves[2], window, sizes=sizes)
    return out.detach(), torch.autograd.grad(out, leaves, grad)


def truth(
    q: Tensor, k: Tensor, v: Tensor, grad: Tensor, window: int
) -> tuple[Tensor, tuple[Tensor, ...], Tensor]:
    n, keys = q.shape[2], k.shape[2]
    mask = Layer(window=window).mask(keys - n, n, keys)
    q, k, v, grad = (x.double() for x in (q, k, v, grad))
    exact = oracle.attention(q, k, v, mask)
    return exact, oracle.attention_gradients(q, k, v, mask, grad), mask


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 40),
    before=st.integers(0, 30),
    window=st.integers(1, 50),
    size=st.integers(1, 20),
    most=st.integers(1, 4),
)
def test_rectangles_hold_the_band_exactly_once(
    n: int, before: int, window: int, size: int, most: int
) -> None:
    keys = before + n
    law = Layer(window=window).mask(before, n, keys)
    like = torch.zeros((), dtype=torch.float64)
    for make in (query_runs, key_runs):
        runs = make(n, keys, min(window, keys), size, most)
        masks = BandMasks(runs, window, like)
        seen = torch.zeros(n, keys, dtype=torch.int64)
        for run in runs:
            visible = (masks.of(run) == 0).long()
            for i in range(run.count):
                first = replace(run, count=1, query=run.query + i * run.step)
                rows = first.query
                columns = run.key + i * run.step
                seen[rows : rows + run.n_queries, columns : columns + run.n_keys] += visible
        assert torch.equal(seen, law.long()), LAW
        assert all(1 <= run.count <= most for run in runs)


@pytest.mark.parametrize("engine", [FlashCpu(), Dense()], ids=["flash", "dense"])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (6, 1)], ids=str)
@pytest.mark.parametrize("lengths", [(1, 1), (40, 40), (33, 70), (1, 50)], ids=str)
def test_outputs_and_gradients_are_the_laws(
    engine: Engine,
    heads: tuple[int, int],
    lengths: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(band_kernel, "engine_for", lambda _: engine)
    x = inputs(2, *heads, *lengths)
    for window in (1, 5, 8, 33, 100):
        exact, exact_grads, mask = truth(*x, window)
        summed = oracle.gradient_magnitudes(*x[:3], mask, x[3])
        bounds = [
            tolerance.row_bound(e, e, terms, 16, 1, s)
            for e, s, terms in zip(
                exact_grads, summed, (mask.sum(-1), mask.sum(0), mask.sum(0)), strict=True
            )
        ]
        out_bound = tolerance.row_bound(
            exact, exact, mask.sum(-1), 16, 1, oracle.attention(*x[:2], x[2].abs(), mask)
        )
        for sizes in (None, Sizes(3, 5), Sizes(16, 4)):
            out, grads = gradients(*x, window, sizes)
            assert (tolerance.row_error(out, exact) <= out_bound).all()
            for got, want, bound in zip(grads, exact_grads, bounds, strict=True):
                assert (tolerance.row_error(got, want) <= bound).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_the_engine_that_is_written_out_rounds_half_precision_once(dtype: torch.dtype) -> None:
    half = [x.to(dtype) for x in inputs(1, 2, 2, 40, 40)]
    mask, answers = torch.zeros(40, 40), []
    for q, k, v, grad in (half, [x.float() for x in half]):
        out, logsumexp = Dense().forward(q, k, v, mask, 0.25)
        assert logsumexp.dtype == torch.float32
        rows = Rows(q, k, v, out.to(dtype), logsumexp)
        found = Dense().backward(grad, rows, mask, 0.25)
        answers.append([x.to(dtype) for x in (out, *found)])
    assert all(torch.equal(a, b) for a, b in zip(*answers, strict=True))


def test_gradients_of_queries_are_summed_over_blocks_in_full_precision() -> None:
    """With many narrow blocks, a sum in half precision would be rounded after each."""
    x = [t.to(torch.bfloat16) for t in inputs(1, 2, 2, 256, 256)]
    q, k, v, grad = x
    exact = truth(q, k, v, grad, 128)[1][0]
    few, many = (gradients(q, k, v, grad, 128, Sizes(96, size))[1][0] for size in (128, 4))
    # Each block rounds its share, which amounts to one more rounding of the sum; the squares of
    # rounding errors add up.  A running sum would be rounded again after each block.
    rounding = relative(exact.to(torch.bfloat16), exact)
    assert relative(many, exact) <= math.hypot(relative(few, exact), rounding)


def test_autocast_does_not_reach_into_the_engine_that_is_written_out() -> None:
    q, k, v, grad = (x.float() for x in inputs(1, 2, 2, 40, 40))
    mask, answers = torch.zeros(40, 40), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found = Dense().forward(q, k, v, mask, 0.25)
            rows = Rows(q, k, v, *found)
            answers.append((*found, *Dense().backward(grad, rows, mask, 0.25)))
    assert all(torch.equal(a, b) for a, b in zip(*answers, strict=True))


def test_a_wrong_rectangle_is_seen() -> None:
    """The comparison above is not blind: a block that is shifted by one key breaks it."""
    q, k, v, grad = inputs(1, 2, 2, 40, 40)
    exact, exact_grads, _ = truth(q, k, v, grad, 8)
    shifted, _, _ = truth(q, k, v, grad, 9)
    assert float(tolerance.row_error(shifted, exact)[8:].min()) > tolerance.MOVED["float32"]
    assert not torch.allclose(exact_grads[0], truth(q, k, v, grad, 7)[1][0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("strides", ["expanded gradient", "transposed", "every other", "a part"])
def test_inputs_of_any_strides(strides: str, dtype: torch.dtype) -> None:
    q, k, v, grad = (x.to(dtype) for x in inputs(2, 4, 2, 40, 40))
    want, want_grads = gradients(q, k, v, torch.ones_like(grad), 8)
    if strides == "transposed":
        q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    elif strides == "every other":
        q, k, v = (x.repeat_interleave(2, -1)[..., ::2] for x in (q, k, v))
    elif strides == "a part":
        q, k, v = (torch.cat((x, x, x), dim=1)[:, x.shape[1] : -x.shape[1]] for x in (q, k, v))
    ones = torch.ones((), dtype=dtype).expand_as(grad)
    leaves = [x.detach().requires_grad_(True) for x in (q, k, v)]
    out = banded(leaves[0], leaves[1], leaves[2], 8)
    assert torch.equal(out, want)
    for got, expected in zip(torch.autograd.grad(out, leaves, ones), want_grads, strict=True):
        assert torch.equal(got, expected)


def test_a_scale_of_zero_is_a_scale_and_not_the_default() -> None:
    """All visible keys then have the same weight, as with queries that are zero."""
    q, k, v, _ = inputs(1, 4, 2, 20, 30)
    assert torch.equal(banded(q, k, v, 8, scale=0.0), banded(torch.zeros_like(q), k, v, 8))
    assert not torch.equal(banded(q, k, v, 8, scale=0.0), banded(q, k, v, 8))


def test_a_traced_kernel_is_right_for_inputs_that_lie_otherwise() -> None:
    """The strides of the example inputs must not become constants of the graph."""

    class Kernel(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return banded(q, k, v, 8)

    q, k, v, _ = inputs(1, 4, 2, 40, 40)
    program = torch.export.export(Kernel(), (q, k, v)).module()
    compiled = torch.compile(banded, backend="eager", fullgraph=True)
    other = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)]
    for laid_out in ((q, k, v), other):
        assert torch.equal(program(*laid_out), banded(*laid_out, 8))
        assert torch.equal(compiled(*laid_out, 8), banded(*laid_out, 8))


@pytest.mark.parametrize("queries", [1, 64, 512])
def test_keys_that_no_query_sees_cost_nothing(queries: int) -> None:
    """A step over a long cache in half precision, where the forward may copy what it reads."""

    def peak(keys: int) -> int:
        q, k, v, _ = (x.to(torch.bfloat16) for x in inputs(1, 4, 2, queries, keys))
        return measure(lambda: banded(q, k, v, 64)).peak_bytes

    assert peak(1024) == peak(4096)


def test_a_second_derivative_is_refused_and_not_left_out() -> None:
    """A gradient penalty through attention and around it must not silently lose the first part."""
    q, k, v, _ = inputs(1, 2, 2, 12, 12)
    # The gradient of the output is a constant for the first, and depends on q for the second.
    for loss in (Tensor.sum, torch.Tensor.square):
        q.requires_grad_(True)
        out = loss(banded(q, k, v, 4)).sum() + q.square().sum()
        (grad,) = torch.autograd.grad(out, q, create_graph=True)
        with pytest.raises(RuntimeError, match="first derivative only"):
            torch.autograd.grad(grad.square().sum(), q)


def relative(got: Tensor, exact: Tensor) -> float:
    """Relative error in norm."""
    return float((got.double() - exact).norm() / exact.norm())


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
