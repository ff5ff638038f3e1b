"""Sliced-Q as a torch operation, eager and exported."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.reference import oracle, tolerance
from harness.schemes.sliced_q.torch_graph import MIN_STATIC, sliced_attention


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def inputs(rows: int, keys: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """q with two heads, k and v with one, and a mask in which each query sees at least one key."""
    visible = normal(rows, keys, seed=4) > 0
    visible[:, 0] = True
    q, k, v = (
        normal(1, h, n, 16, seed=h + n, dtype=dtype) for h, n in ((2, rows), (1, keys), (1, keys))
    )
    return q, k, v, visible


def is_right(got: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> bool:
    """Every row within the bound of the float64 oracle."""
    exact, own = oracle.attention64(q, k, v, mask), oracle.attention(q, k, v, mask)
    summed = oracle.attention64(q, k, v.abs(), mask)
    bound = tolerance.row_bound(own, exact, mask.sum(-1), q.shape[-1], 1, summed)
    return bool((tolerance.row_error(got, exact) <= bound).all())


@pytest.mark.parametrize("rows", [1, 63, 64, 130, 200])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_eager_is_right_at_every_length(rows: int, dtype: torch.dtype) -> None:
    q, k, v, mask = inputs(rows, 70, dtype)
    assert is_right(sliced_attention(q, k, v, mask), q, k, v, mask)


class Attention(torch.nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return sliced_attention(q, k, v, mask)


def count(program: torch.export.ExportedProgram, name: str) -> int:
    return sum(name in str(node.target) for node in program.graph.nodes)


@pytest.mark.parametrize("rows", [MIN_STATIC - 1, MIN_STATIC, 130])
def test_an_exported_program_holds_the_pieces(rows: int) -> None:
    given = inputs(rows, 70)
    program = torch.export.export(Attention(), given)
    assert count(program, "softmax") == (16 if rows >= MIN_STATIC else 1)
    assert count(program, "aten.cat") == (1 if rows >= MIN_STATIC else 0)
    assert torch.equal(program.module()(*given), Attention()(*given))


@pytest.mark.parametrize(("least", "pieces"), [(1280, 16), (2, 1)])
def test_a_dynamic_length_is_cut_if_its_range_begins_at_1280(least: int, pieces: int) -> None:
    rows = torch.export.Dim("rows", min=least, max=4096)
    shapes = ({2: rows}, None, None, {0: rows})
    program = torch.export.export(Attention(), inputs(1301, 70), dynamic_shapes=shapes)
    assert count(program, "softmax") == pieces
    for n in (1280, 1301):
        given = inputs(n, 70)
        assert is_right(program.module()(*given), *given)


def test_scores_of_half_precision_do_not_overflow() -> None:
    q = k = torch.full((1, 1, 64, 64), 32.0, dtype=torch.float16)
    v = normal(1, 1, 64, 64, dtype=torch.float16)
    assert not bool((q @ k.transpose(-1, -2)).isfinite().all())
    assert bool(sliced_attention(q, k, v).isfinite().all())


def test_a_scale_and_an_additive_mask_of_another_type() -> None:
    q, k, v, visible = inputs(70, 70, torch.float16)
    added = torch.zeros(70, 70).masked_fill(~visible, -torch.inf)
    twice = sliced_attention(q * 2, k, v, added, scale=0.125)
    assert twice.dtype == torch.float16
    assert is_right(twice, q, k, v, visible)


def test_a_row_that_sees_nothing_is_nan() -> None:
    q, k, v, visible = inputs(70, 70)
    visible[5] = False
    nan = sliced_attention(q, k, v, visible).isnan().all(-1)
    assert nan[0, 0].nonzero().flatten().tolist() == [5]


def test_gradients_are_those_of_attention() -> None:
    q, k, v, mask = inputs(130, 70, torch.float64)
    leaves = [x.clone().requires_grad_(True) for x in (q, k, v)]
    grad = normal(1, 2, 130, 16, seed=9, dtype=torch.float64)
    got = torch.autograd.grad(sliced_attention(leaves[0], leaves[1], leaves[2], mask), leaves, grad)
    want = oracle.attention_gradients(q, k, v, mask, grad)
    magnitude = oracle.gradient_magnitudes(q, k, v, mask, grad)
    for mine, theirs, size, terms in zip(
        got, want, magnitude, (mask.sum(-1), mask.sum(0), mask.sum(0)), strict=True
    ):
        bound = tolerance.row_bound(theirs, theirs, terms, 16, 2, size)
        assert bool((tolerance.row_error(mine, theirs) <= bound).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"divider": 0}, "divider must be an integer >= 1, got 0"),
        ({"divider": True}, "divider must be an integer >= 1, got True"),
        ({"min_seq_length": -1}, "min_seq_length must be an integer >= 0 or None, got -1"),
        ({"min_seq_length": 1.5}, "min_seq_length must be an integer >= 0 or None, got 1.5"),
        ({"min_seq_length": "64"}, "min_seq_length must be an integer >= 0 or None, got '64'"),
        ({"mask": torch.ones(70, 70).char()}, r"mask must be bool or a float, got torch\.int8"),
        ({"k": torch.ones(1, 1, 0, 16), "v": torch.ones(1, 1, 0, 16)}, "at least one key"),
        ({"mask": torch.ones(3, 3)}, r"mask \(3, 3\) does not broadcast to the scores"),
        ({"v": torch.ones(1, 1, 4, 16)}, "do not fit each other"),
        ({"k": torch.ones(16), "v": torch.ones(16)}, "must have one rank of 2 or more"),
        ({"k": torch.ones(3, 1, 70, 16), "v": torch.ones(3, 1, 70, 16)}, "leading dimensions"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    q, k, v, mask = inputs(70, 70)
    with pytest.raises(ValueError, match=message):
        sliced_attention(**({"q": q, "k": k, "v": v, "mask": mask} | change))
