"""Every op that the interpreter covers, against NumPy: in float32, in float16, on real inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types
from mil_op_cases import CASES, FLOATS, QKV, Q
from mil_op_forms import AT, Array, Op, attention, normal

from harness.mil.errors import MilError
from harness.mil.inference import REVIEWED
from harness.mil.interpreter import run
from harness.mil.kernels import KERNELS
from harness.mil.prepared import STRUCTURE, UNPACKED, coverage
from harness.reference import tolerance

mb, IOS18 = mil.Builder, ct.target.iOS18


def program(case: Op, inputs: dict[str, Any]) -> tuple[Any, dict[str, Array]]:
    """A program of the one op, whose inputs are the program's: nothing can be folded."""
    arrays: dict[str, Array] = {}
    places: dict[str, Any] = {}
    for name, value in inputs.items():
        many = value if isinstance(value, tuple) else (value,)
        names = [f"{name}_{i}" for i in range(len(many))]
        arrays |= dict(zip(names, many, strict=True))
        places[name] = names if isinstance(value, tuple) else names[0]

    def build(*given: Any) -> Any:
        by_name = dict(zip(arrays, given, strict=True))
        args = {
            name: [by_name[n] for n in at] if isinstance(at, list) else by_name[at]
            for name, at in places.items()
        }
        if case.op == "range_1d":  # of a scalar, which no program takes as an input
            args["end"] = mb.squeeze(x=args["end"])
        return getattr(mb, case.op)(**args, **attrs_like(case, inputs))

    specs = [
        mb.TensorSpec(a.shape, types.numpy_type_to_builtin_type(a.dtype)) for a in arrays.values()
    ]
    made = mb.program(input_specs=specs, opset_version=IOS18)(_named(build, list(arrays)))
    return made, arrays


def _named(build: Callable[..., Any], names: list[str]) -> Callable[..., Any]:
    """`build` with the parameters that `mb.program` names its inputs by."""
    scope: dict[str, Any] = {"build": build}
    exec(f"def made({', '.join(names)}): return build({', '.join(names)})", scope)
    return scope["made"]  # type: ignore[no-any-return]


def attrs_like(case: Op, inputs: dict[str, Any]) -> dict[str, Any]:
    """Attributes in the dtype of the inputs: weights and numbers of float16 ops are float16."""
    halves = any(
        isinstance(v, np.ndarray) and v.dtype == np.float16
        for value in inputs.values()
        for v in (value if isinstance(value, tuple) else (value,))
    )
    return {k: as_half(v) if halves else v for k, v in case.attrs.items()}


def as_half(value: Any) -> Any:
    """A float, or an array of float32, as float16; anything else unchanged."""
    if isinstance(value, float):
        return np.float16(value)
    return halved(value) if isinstance(value, np.ndarray) else value


def judge(case: Op, inputs: dict[str, Any]) -> None:
    made, arrays = program(case, inputs)
    got = list(run(made, arrays).values())
    wide = {
        name: tuple(map(widened, v)) if isinstance(v, tuple) else widened(v)
        for name, v in inputs.items()
    }
    expected = case.expect(*wide.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert len(got) == len(expected)
    for value, want in zip(got, map(np.asarray, expected), strict=True):
        assert value.shape == want.shape
        if not np.issubdtype(value.dtype, np.floating):
            np.testing.assert_array_equal(value, want)
            continue
        # One sum of `terms` float32 roundings, relative to what is summed; then one rounding to
        # the result's own dtype.
        largest = max(float(np.abs(v).max()) for v in arrays.values())
        scale = float(np.abs(want).max()) + largest
        unit32, unit = np.finfo(np.float32).eps / 2, np.finfo(value.dtype).eps / 2
        bound = tolerance.LAMBDA * unit32 * math.sqrt(case.terms) * scale + unit * np.abs(want)
        bound = bound + np.finfo(value.dtype).smallest_subnormal
        assert (np.abs(value.astype(np.float64) - want) <= bound).all()


def widened(x: Array) -> Array:
    return x.astype(np.float64) if np.issubdtype(x.dtype, np.floating) else x


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_op_is_what_it_says(case: Op) -> None:
    judge(case, case.inputs)


@pytest.mark.parametrize("case", FLOATS, ids=str)
def test_an_op_in_float16_is_rounded_once(case: Op) -> None:
    halves = {
        name: tuple(map(halved, v)) if isinstance(v, tuple) else halved(v)
        for name, v in case.inputs.items()
    }
    judge(case, halves)


def halved(x: Array) -> Array:
    return x.astype(np.float16) if x.dtype == np.float32 else x


def test_every_covered_op_has_a_case() -> None:
    """Constants, compressed weights, states and branches are tested with whole programs."""
    elsewhere = UNPACKED | STRUCTURE | {"const"}
    assert {case.op for case in CASES} == set(coverage()) - elsewhere
    assert not REVIEWED & set(KERNELS)  # one code for each


def test_float16_overflows_where_an_op_ends_and_not_within() -> None:
    """The product overflows as an op of its own, but not within the attention op."""
    q = np.full((1, 2, 8), 256, np.float16)
    v = normal(1, 2, 8).astype(np.float16)

    @mb.program(input_specs=[mb.TensorSpec(q.shape, types.fp16)] * 1, opset_version=IOS18)
    def product(q: Any) -> Any:
        return mb.matmul(x=q, y=q, transpose_y=True)

    @mb.program(input_specs=[mb.TensorSpec(q.shape, types.fp16)] * 1, opset_version=IOS18)
    def fused(q: Any) -> Any:
        return mb.scaled_dot_product_attention(query=q, key=q, value=v)

    (scores,) = run(product, {"q": q}).values()
    (out,) = run(fused, {"q": q}).values()
    assert np.isinf(scores).all()
    assert np.isfinite(out).all()


def test_a_row_that_sees_nothing_is_nan_in_the_fused_op() -> None:
    case = Op(
        "scaled_dot_product_attention", QKV | {"attn_mask": np.zeros((6, 7), bool)}, attention
    )
    made, arrays = program(case, case.inputs)
    (out,) = run(made, arrays).values()
    assert np.isnan(out).all()


def test_a_runtime_mask_is_not_ignored_with_constant_keys() -> None:
    """coremltools' own `value_inference` folds q, k, v and drops the mask."""
    causal = np.tril(np.ones((6, 6), bool))
    q = Q[:, :, :, :5].astype(np.float32)

    @mb.program(input_specs=[mb.TensorSpec(causal.shape, types.bool)], opset_version=IOS18)
    def masked(mask: Any) -> Any:
        return mb.scaled_dot_product_attention(query=q, key=q, value=q, attn_mask=mask)

    (out,) = run(masked, {"mask": causal}).values()
    folded = masked.functions["main"].outputs[0].val
    # coremltools has the defect: its folded answer is the unmasked one.  The interpreter's is not.
    for got, mask, keys in ((out, causal, torch.arange(1, 7)), (folded, None, torch.full((6,), 6))):
        exact, own = (torch.from_numpy(attention(x, x, x, mask)) for x in (q.astype(np.float64), q))
        bound = tolerance.row_bound(own, exact, keys, q.shape[-1], 1)
        assert (tolerance.row_error(torch.from_numpy(got), exact) <= bound).all()
    assert np.abs(folded - out).max() > 0.1


@pytest.mark.parametrize(
    ("op", "inputs", "attrs"),
    [
        (
            "scatter",
            {"data": normal(3, 5), "indices": AT + 1, "updates": normal(3, 3)},
            {"axis": 1},
        ),
        (
            "scatter_nd",
            {"data": normal(5, 2), "indices": -AT[:, None], "updates": normal(3, 2)},
            {},
        ),
        (
            "scatter_along_axis",
            {
                "data": normal(5, 2),
                "indices": AT[:, None].repeat(2, 1) + 1,
                "updates": normal(3, 2),
            },
            {"axis": 0},
        ),
        ("gather_nd", {"x": normal(5, 2), "indices": AT[:, None] + 1}, {}),
        ("gather", {"x": normal(5, 2), "indices": AT + 1}, {"axis": 0}),
        ("gather", {"x": normal(5, 2), "indices": AT - 1}, {"axis": 0}),
        (
            "gather_along_axis",
            {"x": normal(5, 2), "indices": AT[:, None].repeat(2, 1) - 1},
            {"axis": 0},
        ),
    ],
)
def test_an_index_out_of_range_is_an_error(op: str, inputs: dict[str, Any], attrs: Any) -> None:
    """Core ML has not defined such indices since iOS 17, so that no answer would be right."""
    made, arrays = program(Op(op, inputs, np.array, attrs), inputs)
    with pytest.raises(MilError, match="indices must be in 0…4, got"):
        run(made, arrays)
