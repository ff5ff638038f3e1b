"""The band of blocks: every block size and shape, gradients, and what it refuses."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from band_inputs import gradients, inputs, relative, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from harness.law import Layer
from harness.memory import measure
from harness.reference import oracle, tolerance
from harness.schemes.band import kernel as band_kernel
from harness.schemes.band.blocks import BandMasks, key_runs, query_runs
from harness.schemes.band.engines import Dense, Engine, FlashCpu, Rows
from harness.schemes.band.kernel import banded
from harness.schemes.band.sizes import Sizes

LAW = "the law, from the mask of every rectangle put back into its place"


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
