"""Attention that a frontend has written out, in the ways in which models do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types
from torch import Tensor

from harness.mil import interpreter
from harness.reference import tolerance
from harness.schemes.sliced_q.mil_pass import SlicedQ
from harness.schemes.sliced_q.slicer import mb
from harness.subjects.coreml.sliced_q_programs import op_types

ROWS, KEYS, WIDTH = 70, 9, 8
SHAPES = {
    "q": (1, 2, ROWS, WIDTH),
    "k": (1, 2, KEYS, WIDTH),
    "v": (1, 2, KEYS, WIDTH),
    "bias": (1, 1, ROWS, KEYS),
    "rel": (1, 2, WIDTH, KEYS),
}

Steps = Callable[[Any, dict[str, Any]], Any]


def scaled(scores: Any, x: dict[str, Any]) -> Any:
    return mb.add(x=mb.real_div(x=scores, y=np.float32(3)), y=x["bias"])


def soft_cap(scores: Any, x: dict[str, Any]) -> Any:
    """Gemma 2."""
    capped = mb.mul(x=mb.tanh(x=mb.mul(x=scores, y=np.float32(0.2))), y=np.float32(5))
    return mb.add(x=x["bias"], y=capped)


def chosen(scores: Any, x: dict[str, Any]) -> Any:
    return mb.select(cond=mb.greater(x=x["bias"], y=np.float32(-1)), a=scores, b=np.float32(-9))


def hidden(scores: Any, x: dict[str, Any]) -> Any:
    return mb.select(cond=mb.less(x=x["bias"], y=np.float32(-1)), a=np.float32(-9), b=scores)


def relative(scores: Any, x: dict[str, Any]) -> Any:
    """A second product of the query, as in attention with relative positions."""
    return mb.add(x=scores, y=mb.matmul(x=x["q"], y=x["rel"]))


def in_half(scores: Any, x: dict[str, Any]) -> Any:
    """A softmax in another precision: casts on both sides of it."""
    del x
    return mb.cast(x=mb.cast(x=scores, dtype="fp16"), dtype="fp32")


def clipped(scores: Any, x: dict[str, Any]) -> Any:
    low = mb.maximum(x=scores, y=x["bias"])
    return mb.clip(x=mb.minimum(x=low, y=np.float32(2)), alpha=np.float32(-1), beta=np.float32(1))


def nothing(scores: Any, x: dict[str, Any]) -> Any:
    del x
    return scores


KINDS: tuple[Steps, ...] = (
    nothing,
    scaled,
    soft_cap,
    chosen,
    hidden,
    relative,
    in_half,
    clipped,
)


def written(
    steps: Steps,
    *,
    dynamic: bool = False,
    finish: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """matmul, steps, softmax, and matmul or `finish(weights, v)`."""
    rows = mil.get_new_symbol() if dynamic else ROWS
    placeholders = {
        name: mb.placeholder(
            shape=tuple(rows if n == ROWS else n for n in shape),
            dtype=types.fp32,
        )
        for name, shape in SHAPES.items()
    }
    with mil.Function(placeholders, opset_version=ct.target.iOS18) as main:
        x = main.inputs
        scores = mb.matmul(x=x["q"], y=x["k"], transpose_y=True)
        weights = mb.softmax(x=steps(scores, x), axis=-1)
        close = finish or (lambda w, v: mb.matmul(x=w, y=v))
        out = close(weights, x["v"])
        main.set_outputs(list(out) if isinstance(out, tuple) else [mb.identity(x=out, name="out")])
    program = mil.Program()
    program.add_function("main", main)
    return program


def given() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def answers(program: Any) -> list[Tensor]:
    out = interpreter.run(program, {name: x.numpy() for name, x in given().items()})
    return [torch.from_numpy(np.asarray(x)) for x in out.values()]


def slice_it(program: Any) -> Any:
    sliced_q = SlicedQ()
    sliced_q.min_seq_length = 64
    sliced_q(program)
    program.validate()
    return sliced_q.log


@pytest.mark.parametrize(
    ("steps", "dynamic"),
    [*((steps, False) for steps in KINDS), (nothing, True), (chosen, True), (relative, True)],
    ids=lambda x: getattr(x, "__name__", "dynamic" if x else "static"),
)
def test_each_way_of_writing_it_out_is_sliced_and_answers_the_same(
    steps: Steps, dynamic: bool
) -> None:
    (plain,) = answers(written(steps, dynamic=dynamic))
    program = written(steps, dynamic=dynamic)
    (decision,) = slice_it(program)
    assert (decision.fired, decision.form) == (True, "written out")
    types_after = op_types(program.functions["main"])
    assert types_after.count("softmax") == 16 + dynamic
    assert types_after.count("concat") == 1
    (got,) = answers(program)
    # The same arithmetic on the same rows: only the order of the sums in products may differ.
    bound = tolerance.row_bound(plain, plain.double(), torch.full((ROWS,), KEYS), WIDTH, 1)
    assert bool((tolerance.row_error(got, plain) <= bound).all())


def test_a_cast_behind_the_softmax_is_on_the_way() -> None:
    """Softmax in float32, weights in half precision: the usual way to write eager attention."""

    def finish(weights: Any, v: Any) -> Any:
        half = mb.matmul(x=mb.cast(x=weights, dtype="fp16"), y=mb.cast(x=v, dtype="fp16"))
        return mb.cast(x=half, dtype="fp32")

    (plain,) = answers(written(scaled, finish=finish))
    program = written(scaled, finish=finish)
    (decision,) = slice_it(program)
    assert decision.fired
    assert torch.equal(answers(program)[0], plain)


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "weights are an output": (
        lambda w, v: (mb.matmul(x=w, y=v, name="out"), w),
        "is used elsewhere too",
    ),
    "transposed weights": (
        lambda w, _: mb.matmul(x=w, y=mb.transpose(x=w, perm=[0, 1, 3, 2]), name="out"),
        "is used elsewhere too",
    ),
    "weights from the right": (
        lambda w, v: mb.matmul(x=v, y=w, transpose_x=True, transpose_y=True, name="out"),
        "rows of the query are not rows of the output",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_sliced_by_rows_is_left_alone_and_said(case: str) -> None:
    finish, reason = REFUSED[case]
    program = written(scaled, finish=finish)
    before = op_types(program.functions["main"])
    (decision,) = slice_it(program)
    assert not decision.fired
    assert reason in decision.reason
    assert op_types(program.functions["main"]) == before


def test_a_softmax_over_the_queries_is_left_alone_and_said() -> None:
    placeholders = {n: mb.placeholder(shape=SHAPES[n], dtype=types.fp32) for n in "qkv"}
    with mil.Function(placeholders, opset_version=ct.target.iOS18) as main:
        x = main.inputs
        scores = mb.matmul(x=x["q"], y=x["k"], transpose_y=True)
        main.set_outputs([mb.matmul(x=mb.softmax(x=scores, axis=-2), y=x["v"], name="out")])
    program = mil.Program()
    program.add_function("main", main)
    (decision,) = slice_it(program)
    assert not decision.fired
    assert "over axis -2, not over the keys" in decision.reason


@pytest.mark.parametrize("outside", ["product", "weights"])
def test_attention_that_stands_partly_in_a_branch_is_left_alone_and_said(outside: str) -> None:
    placeholders = {n: mb.placeholder(shape=SHAPES[n], dtype=types.fp32) for n in SHAPES}
    with mil.Function(placeholders, opset_version=ct.target.iOS18) as main:
        x = main.inputs
        product = mb.matmul(x=x["q"], y=x["k"], transpose_y=True)
        made = mb.softmax(x=product, axis=-1) if outside == "weights" else product
        go = mb.greater(x=mb.reduce_sum(x=x["rel"], keep_dims=False), y=np.float32(0))

        def attention() -> Any:
            weights = made if outside == "weights" else mb.softmax(x=made, axis=-1)
            return mb.matmul(x=weights, y=x["v"])

        main.set_outputs([mb.cond(pred=go, _true_fn=attention, _false_fn=lambda: x["q"])])
    program = mil.Program()
    program.add_function("main", main)
    before = op_types(program.functions["main"])
    (decision,) = slice_it(program)
    assert (decision.fired, decision.reason) == (False, "it is partly inside a branch")
    assert op_types(program.functions["main"]) == before


def test_a_softmax_that_is_no_attention_is_not_even_named() -> None:
    def finish(weights: Any, v: Any) -> Any:
        del v
        return mb.reduce_sum(x=weights, axes=[-1], keep_dims=True)

    assert slice_it(written(scaled, finish=finish)) == []
