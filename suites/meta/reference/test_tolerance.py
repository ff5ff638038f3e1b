"""The bound and its guard: neither blind nor quick to cry."""

from __future__ import annotations

import pytest
import torch

from harness.cases.case import Case, parse
from harness.checks import run_check
from harness.defects import DEFECTS
from harness.defects.base import TrimmedSubject
from harness.law import Layer
from harness.reference import inputs, oracle, tolerance
from harness.report import errorplot
from harness.results.finding import Kind, Status
from harness.run.plan import items

CASE = parse("llama3-sink2/decode-3wraps/float32/b1")


def _bound(layer: Layer, n: int, dtype: torch.dtype) -> tuple[inputs.Inputs, torch.Tensor]:
    x = inputs.edge(CASE, layer, n, 4, 2).to(dtype)
    mask = layer.mask(0, n, n)
    exact = oracle.attention64(x.q, x.k, x.v, mask)
    own = oracle.attention(x.q, x.k, x.v, mask)
    return x, tolerance.row_bound(own, exact, mask.sum(-1), inputs.OP_HEAD_DIM, 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("window", [8, 9, 33, 100])
@pytest.mark.parametrize("sink", [0, 1, 4])
def test_edge_inputs_tell_a_window_from_its_neighbours(
    dtype: torch.dtype, window: int, sink: int
) -> None:
    layer, n = Layer(window, sink), 3 * window + 5
    x, bound = _bound(layer, n, dtype)
    exact = oracle.attention64(x.q, x.k, x.v, layer.mask(0, n, n))
    for near in tolerance.neighbours(layer, n):
        wrong = oracle.attention64(x.q, x.k, x.v, near.mask(0, n, n))
        margin = tolerance.margin(exact, [wrong], bound)
        assert margin is not None
        assert margin >= tolerance.SEPARATION, f"{near} is {margin:.3g} bounds from {layer}"


def test_a_permuted_order_of_summation_stays_within_the_bound() -> None:
    layer, n = Layer(window=33), 100
    for seed in range(20):
        x, bound = _bound(layer, n, torch.float32)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        mask = layer.mask(0, n, n)
        got = oracle.attention(x.q, x.k[:, :, order], x.v[:, :, order], mask[:, order])
        exact = oracle.attention64(x.q, x.k, x.v, mask)
        assert (tolerance.row_error(got, exact) <= bound).all()


@pytest.mark.parametrize("dtype", tolerance.MOVED)
def test_what_counts_as_moved_lies_just_above_rounding(dtype: str) -> None:
    rounding = tolerance.DOUBT * torch.finfo(getattr(torch, dtype)).eps / 2
    assert rounding < tolerance.MOVED[dtype] < rounding * (1000 if dtype == "float64" else 10)


def test_nan_and_infinity_are_errors() -> None:
    rows = torch.zeros(1, 3, 4)
    rows[0, 1, 2] = torch.nan
    rows[0, 2, 0] = torch.inf
    assert tolerance.row_error(rows, torch.zeros(1, 3, 4)).tolist() == [0, torch.inf, torch.inf]


def test_neighbours_differ_within_the_positions_fed() -> None:
    # Of seven positions none leaves a window of eight: the nearest law forgets the first key.
    assert list(tolerance.neighbours(Layer(window=8), 7)) == [Layer(window=6)]
    assert Layer(window=4) in tolerance.neighbours(Layer(), 5)
    assert list(tolerance.neighbours(Layer(), 1)) == []
    assert len(list(tolerance.neighbours(Layer(window=8, sink=2), 40))) == 4


def test_wrong_stacks_change_one_layer_each() -> None:
    layers = (Layer(window=8),) * 5 + (Layer(),)
    for stack in tolerance.wrong_stacks(layers, 40):
        assert sum(a != b for a, b in zip(stack, layers, strict=True)) == 1


@pytest.mark.usefixtures("fresh_references")
def test_a_blind_bound_fails_a_correct_subject(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tolerance that would pass a neighbour is caught, whatever the subject answers."""
    real = tolerance.row_bound
    monkeypatch.setattr(tolerance, "row_bound", lambda *args: 1e5 * real(*args))
    finding = run_check(TrimmedSubject, "values", parse("mistral/chunk-w/float32/b1"))
    assert finding.status == Status.FAIL
    assert finding.kind is Kind.BLIND


def test_every_values_case_carries_its_guard() -> None:
    planned = [case for check, case in items(TrimmedSubject) if check == "values"]
    sample: list[Case] = [c for c in planned if c.model.name in ("llama3-sink2", "gemma4-26b")]
    assert sample
    for case in sample:
        finding = run_check(TrimmedSubject, "values", case)
        assert finding.margin is not None, case.id
        assert finding.margin >= tolerance.SEPARATION, case.id


def test_a_wrong_law_is_named_for_what_it_says_otherwise() -> None:
    truth = (Layer(window=8, sink=2), Layer())
    named = {tolerance.difference(truth, w) for w in tolerance.wrong_stacks(truth, 20)}
    assert named == {"window 7", "window 9", "sink 1", "sink 3", "window 19"}
    assert tolerance.difference([Layer(window=8, sink=2)], [Layer(window=4)]) == "window 4, sink 0"


def test_of_one_name_the_curve_nearest_to_the_truth_is_kept() -> None:
    bound = torch.tensor([1.0, 0.0, 2.0])
    far, near = torch.tensor([9.0, 0.0, 9.0]), torch.tensor([0.0, 0.0, 6.6666])
    found = tolerance.curves([("window 9", far), ("window 9", near), ("sink 1", far)], bound)
    assert found == {"window 9": [0.0, 0.0, 3.33], "sink 1": [9.0, 0.0, 4.5]}


def test_what_fails_says_what_its_neighbours_would_be_off_by() -> None:
    """Passing records have no curves, and stay small."""
    case = parse("mistral/prefill-w+1/float32/b1")
    (wider,) = (d.subject for d in DEFECTS if d.name == "defect.WindowPlusOne")
    broken = run_check(wider, "values", case)
    assert {"window 7", "window 9"} <= set(broken.neighbours)
    assert all(len(held) == len(broken.errors) for held in broken.neighbours.values())
    shown = errorplot.plot(broken.errors, 8, broken.neighbours)
    assert [c.name for c in shown.curves if c.same] == ["window 9"]
    assert "window 9 would be off by up to" in shown.label
    assert run_check(TrimmedSubject, "values", case).neighbours == {}
