"""The forward as plain products: pieces, blocks, corners, half precision, and when it is used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from harness.bench.timing import threads
from harness.law import Layer
from harness.reference import oracle, tolerance
from harness.schemes.band import kernel as band_kernel
from harness.schemes.band import products
from harness.schemes.band.blocks import query_runs
from harness.schemes.band.kernel import band_forward, banded
from harness.schemes.band.products import Corners
from harness.schemes.band.sizes import Sizes


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with threads(1):
        yield


def inputs(
    heads: int, kv_heads: int, n: int, keys: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    shapes = ((heads, n), (kv_heads, keys), (kv_heads, keys))
    q, k, v = (torch.randn(2, h, s, 16, generator=g, dtype=torch.float64) for h, s in shapes)
    return q.to(dtype), k.to(dtype), v.to(dtype)


@pytest.mark.parametrize("piece", [48, products.PIECE])
@pytest.mark.parametrize("heads", [(2, 2), (4, 2), (6, 1)], ids=str)
@pytest.mark.parametrize("lengths", [(64, 64), (131, 131), (100, 170)], ids=str)
def test_outputs_and_logsumexp_are_the_laws(
    heads: tuple[int, int], lengths: tuple[int, int], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "PIECE", piece)
    q, k, v = inputs(*heads, *lengths)
    assert products.takes(q, 0.25)
    for window in (1, 2, 31, 64, 200):
        mask = Layer(window=window).mask(lengths[1] - lengths[0], *lengths)
        exact = oracle.attention(q, k, v, mask)
        summed = oracle.attention(q, k, v.abs(), mask)
        bound = tolerance.row_bound(exact, exact, mask.sum(-1), 16, 1, summed)
        keys = k.repeat_interleave(heads[0] // heads[1], 1)
        scores = (q @ keys.transpose(-1, -2) * 0.25).masked_fill(~mask, -torch.inf)
        for size in (3, 16, products.block_queries(heads[0] // heads[1])):
            out, logsumexp = band_forward(q, k, v, min(window, lengths[1]), 0.25, size)
            assert (tolerance.row_error(out, exact) <= bound).all()
            torch.testing.assert_close(logsumexp, scores.logsumexp(-1))


def test_a_scale_that_is_not_positive_is_right_all_the_same() -> None:
    q, k, v = inputs(4, 2, 100, 100)
    torch.testing.assert_close(banded(q, k, v, 30, -0.5), banded(-q, k, v, 30, 0.5))
    torch.testing.assert_close(banded(q, k, v, 30, 0.0), banded(0 * q, k, v, 30))


def test_corners_and_what_is_between_are_the_band() -> None:
    for run in query_runs(40, 60, 13, 8):
        scores = torch.zeros(1, run.n_queries, 2, run.n_keys)
        Corners.of(run, 13).hide(scores)
        rows = torch.arange(run.n_queries)[:, None] + run.shift
        columns = torch.arange(run.n_keys)
        seen = (columns <= rows) & (columns > rows - 13)
        assert torch.equal(scores[0, :, 0] == 0, seen)
        assert torch.equal(scores[0, :, 1], scores[0, :, 0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_float32_that_is_rounded_once(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(products, "multiplies", lambda _: False)
    q, k, v = inputs(4, 2, 100, 170, dtype)
    wide = banded(q.float(), k.float(), v.float(), 30)
    assert torch.equal(banded(q, k, v, 30), wide.to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(banded(q.float(), k.float(), v.float(), 30), wide)


def test_products_are_for_long_calls_on_one_thread_without_the_instructions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    able: dict[str, bool] = {}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    q = torch.zeros(1, 2, 64, 16)
    assert products.takes(q, 0.25)
    assert not products.takes(q[:, :, 1:], 0.25)
    assert not products.takes(q, 0.0)
    assert not products.takes(q.to("meta"), 0.25)
    assert products.takes(q.bfloat16(), 0.25)
    assert products.takes(q.half(), 0.25)
    with threads(2):
        assert not products.takes(q, 0.25)
    able |= {"amx_bf16": True}
    assert not products.takes(q.bfloat16(), 0.25)
    assert products.takes(q.half(), 0.25)
    assert products.takes(q, 0.25)


def test_a_traced_graph_keeps_to_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    class Kernel(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return banded(q, k, v, 30)

    x = inputs(4, 2, 100, 100)
    program = torch.export.export(Kernel(), x).module()
    names = [str(node.target) for node in program.graph.nodes]
    assert not any("exp2" in name for name in names)
    traced = program(*x)
    monkeypatch.setattr(products, "takes", lambda *_: False)
    assert torch.equal(traced, banded(*x, 30))


def test_blocks_are_short_and_of_enough_rows() -> None:
    assert [products.block_queries(groups) for groups in (1, 2, 4)] == [64, 32, 32]
    q, k, v = inputs(4, 2, 100, 100, torch.float32)
    said: list[int] = []
    real = band_kernel.band_forward

    def told(*args: Tensor, **more: int) -> tuple[Tensor, Tensor]:
        said.append(int(args[5]))
        return real(*args, **more)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(band_kernel, "band_forward", told)
        banded(q, k, v, 30)
        banded(q, k, v, 30, sizes=Sizes(5, 7))
    assert said == [32, 5]
