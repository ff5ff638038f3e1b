"""The defects of coremltools' sliced-Q pass, each by the smallest program that shows it.

Those that cases of the suite can show are in suites/known_failures/coremltools.toml.  This is the
whole list, including those that do not show in a program's answer.  Our pass has none of them,
except D11, which is a defect of the op.
"""

from __future__ import annotations

from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types

from harness.mil import interpreter, liveness
from harness.schemes.sliced_q.slicer import mb
from harness.subjects.coreml.sliced_q_judge import inputs_for, problem
from harness.subjects.coreml.sliced_q_programs import (
    DidNotFireError,
    Form,
    fused,
    own,
    run,
    shipped,
    sliced,
)


def form(*shape: int, **changes: Any) -> Form:
    """q, k and v of one shape, float32."""
    return Form(**({"query": shape, "key": shape, "value": shape} | changes))


def dynamic(*names: str) -> frozenset[str]:
    return frozenset(names)


RAISES = {
    "D1": (form(1, 2, 16, 8, mask=(1, 1, 16, 16)), TypeError, "size of 'begin', 2"),
    "D2": (form(1, 2, 16, 8, mask=(16,)), IndexError, "tuple index out of range"),
    "D3 half query": (
        form(1, 2, 16, 8, dtype="float16", mask=(16, 16), mask_dtype="float32"),
        ValueError,
        "must have the same data type",
    ),
    "D3 half mask": (
        form(1, 2, 16, 8, mask=(16, 16), mask_dtype="float16"),
        ValueError,
        "must have the same data type",
    ),
    "D4": (form(1, 2, 16, 8, dynamic=dynamic("length")), TypeError, "truth value of Relational"),
    "D5": (form(2, 2, 16, 8, dynamic=dynamic("batch")), ValueError, "Cannot add const"),
    "D6": (
        form(1, 2, 16, 8, mask=(16, 16), dynamic=dynamic("keys")),
        TypeError,
        "'Symbol' object cannot be interpreted as an integer",
    ),
    "D9": (form(1, 2, 16, 8, inside=True), DidNotFireError, "the fused op is still there"),
}


@pytest.mark.parametrize("defect", RAISES)
def test_the_shipped_pass_raises_or_stays_silent_where_ours_is_right(defect: str) -> None:
    what, error, message = RAISES[defect]
    with pytest.raises(error, match=message):
        sliced(what, shipped(1, 16))
    assert not problem(what, sliced(what, own(1, 16)))


def test_d1_spares_a_mask_of_one_row() -> None:
    what = form(1, 2, 16, 8, mask=(1, 1, 1, 16))
    assert not problem(what, sliced(what, shipped(1, 16)))


def test_d7_half_precision_overflows_behind_the_product() -> None:
    what = form(1, 1, 16, 64, dtype="float16")
    x = inputs_for(what, 0, level=32.0)

    def finite(program: Any) -> bool:
        return bool(run(program, what, x.q, x.k, x.v, None).isfinite().all())

    assert not finite(sliced(what, shipped(1, 16)))
    assert finite(fused(what))
    assert finite(sliced(what, own(1, 16)))


@pytest.mark.parametrize("rows", [1, 3, 15])
def test_d8_a_piece_ends_behind_the_last_row(rows: int) -> None:
    """The answer is right only by luck: the slice is clamped."""
    what = form(1, 1, rows, 8)
    theirs, ours = sliced(what, shipped(1, 16)), sliced(what, own(1, 16))
    assert max(_ends(theirs)) > rows
    assert max(_ends(ours), default=rows) == rows
    assert not problem(what, theirs)
    assert not problem(what, ours)


def _ends(program: Any) -> list[int]:
    ops = program.functions["main"].operations
    return [int(op.end.val[-2]) for op in ops if op.op_type == "slice_by_index"]


def test_d10_a_bool_mask_becomes_constants_of_its_size() -> None:
    what = form(1, 1, 256, 8, mask=(256, 256))
    theirs, ours = (
        liveness.peak(sliced(what, make(1, 16)).functions["main"]).weights
        for make in (shipped, own)
    )
    assert theirs >= 256 * 256 * 4
    assert ours < 256 * 16


def test_d11_constant_queries_keys_and_values_lose_their_mask() -> None:
    """The op's own `value_inference` folds them when the op is made, before any pass can run."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 1, 4, 8)).astype(np.float32) for _ in range(3))
    mask = {"mask": mb.placeholder(shape=(4, 4), dtype=types.bool)}
    with mil.Function(mask, opset_version=ct.target.iOS18) as main:
        given = main.inputs["mask"]
        out = mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=given)
        main.set_outputs([mb.identity(x=out, name="out")])
    program = mil.Program()
    program.add_function("main", main)
    folded = main.outputs[0].val
    tensors = [torch.from_numpy(x) for x in (q, k, v)]
    visible = torch.eye(4).bool()
    attend = torch.nn.functional.scaled_dot_product_attention
    assert folded is not None, "the op no longer folds: D11 is gone"
    assert np.abs(folded - attend(*tensors).numpy()).max() < 1e-3 * np.abs(folded).max()
    right = attend(*tensors, attn_mask=visible).numpy()
    assert np.abs(folded - right).max() > 0.1 * np.abs(right).max()
    # The program itself still holds the mask; run as it is, it is right.
    answer = interpreter.run(program, {"mask": visible.numpy()})["out"]
    assert np.abs(answer - right).max() < 1e-3 * np.abs(right).max()
    # Our pass leaves it alone and says why.
    sliced_q = own(1, 16)
    sliced_q(program)
    (decision,) = sliced_q.log
    assert not decision.fired
    assert "constants" in decision.reason
