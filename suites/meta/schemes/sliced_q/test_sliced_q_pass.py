"""The sliced-Q pass: its options, its log, its place, and what it must not touch."""

from __future__ import annotations

from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.passes.pass_registry import PASS_REGISTRY
from coremltools.converters.mil.mil.scope import ScopeInfo, ScopeSource

from harness.mil import interpreter
from harness.reference import tolerance
from harness.schemes.sliced_q.log import Log
from harness.schemes.sliced_q.mil_pass import DIVIDER, MIN_STATIC, NAME, SlicedQ, pipeline
from harness.schemes.sliced_q.slicer import mb
from harness.subjects.coreml.sliced_q_judge import inputs_for, problem
from harness.subjects.coreml.sliced_q_programs import (
    ATTENTION,
    DidNotFireError,
    Form,
    fused,
    op_types,
    own,
    run,
    sliced,
)


def form(rows: int, **changes: Any) -> Form:
    sizes = {"query": (1, 2, rows, 8), "key": (1, 2, 9, 8), "value": (1, 2, 9, 8)}
    return Form(**(sizes | changes))


def decide(what: Form, kind: SlicedQ | None = None) -> Any:
    """The single decision of the pass, by default with its defaults, and the program after it."""
    sliced_q = SlicedQ() if kind is None else kind
    sliced_q.log = Log()
    program = fused(what)
    sliced_q(program)
    (decision,) = sliced_q.log
    return decision, program


# --- thresholds and options ------------------------------------------------------------------


def test_known_lengths_are_sliced_from_64_rows_on() -> None:
    assert not decide(form(MIN_STATIC - 1))[0].fired
    decision, _ = decide(form(MIN_STATIC))
    assert decision.fired
    assert (len(decision.parts), sum(decision.parts)) == (DIVIDER, MIN_STATIC)


@pytest.mark.parametrize("rows", [1279, 1280])
def test_dynamic_lengths_are_sliced_at_run_time_from_1280_rows_on(rows: int) -> None:
    """The program holds both forms; which one ran shows in the shapes of what was computed."""
    what = form(rows, dynamic=frozenset({"length"}), dtype="float16")
    decision, program = decide(what)
    assert decision.fired
    assert "from 1280 rows on" in decision.reason
    (branch,) = [op for op in program.functions["main"].operations if op.op_type == "cond"]
    assert ATTENTION not in op_types(branch.blocks[0])
    assert op_types(branch.blocks[1]).count(ATTENTION) == 1
    x = inputs_for(what, 0)
    plain = run(fused(what), what, x.q, x.k, x.v, None)
    got = run(program, what, x.q, x.k, x.v, None)
    # The fused op scales after the product, so the bits are equal only if it ran itself.
    assert torch.equal(got, plain) == (rows < 1280)
    assert not problem(what, program)


def test_a_divider_above_the_length_cuts_single_rows() -> None:
    decision, program = decide(form(3), own(1, 16))
    assert decision.parts == (1, 1, 1)
    assert not problem(form(3), program)


def test_one_piece_is_the_op_written_out() -> None:
    decision, program = decide(form(70), own(None, 1))
    assert decision.parts == (70,)
    assert not {ATTENTION, "slice_by_index", "concat"} & set(op_types(program.functions["main"]))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("min_seq_length", -1),
        ("min_seq_length", True),
        ("min_seq_length", 1.5),
        ("seq_length_divider", 0),
        ("seq_length_divider", "16"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_any_conversion(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"pass option {option} must be an integer >= "):
        pipeline(**{option: value})


def test_the_pipeline_ends_with_the_pass_and_hands_it_its_options() -> None:
    log = Log()
    passes = pipeline(min_seq_length=7, seq_length_divider=5, log=log)
    assert passes.passes == [*ct.PassPipeline.DEFAULT.passes, NAME]
    made = PASS_REGISTRY[NAME]
    made.set_options(passes.get_options(NAME))
    assert (made.min_seq_length, made.seq_length_divider, made.log is log) == (7, 5, True)


# --- the log ---------------------------------------------------------------------------------


def test_every_decision_says_why() -> None:
    fired, _ = decide(form(130))
    expected = "(fused) in main, query 1×2×130×8: cut into 16 pieces of at most 9 rows"
    assert str(fired).endswith(expected)
    skipped, program = decide(form(20))
    assert "20 rows are fewer than min_seq_length 64" in str(skipped)
    assert str(skipped).startswith("skipped")
    assert ATTENTION in op_types(program.functions["main"])


def test_a_program_without_attention_says_so() -> None:
    assert str(Log()) == "no attention op in the program"


def test_a_subject_demands_that_the_pass_fired() -> None:
    with pytest.raises(DidNotFireError, match="20 rows are fewer"):
        sliced(form(20), SlicedQ())


# --- what it must be right about -------------------------------------------------------------


def test_attention_in_a_branch_is_sliced_where_it_stands() -> None:
    decision, program = decide(form(130, inside=True))
    assert decision.fired
    assert decision.place.startswith("main/")
    assert decision.place.endswith("_true")
    assert not problem(form(130, inside=True), program)


@pytest.mark.parametrize("reads", ["query", "key"])
@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
def test_attention_on_the_output_of_another_reads_what_that_was_sliced_into(
    reads: str, *, known: bool
) -> None:
    shape = (1, 2, 20 if known else mil.get_new_symbol(), 8)

    def program() -> Any:
        placeholders = {n: mb.placeholder(shape=shape, dtype=types.fp32) for n in "qkv"}
        with mil.Function(placeholders, opset_version=ct.target.iOS18) as main:
            x = dict(zip(("query", "key", "value"), main.inputs.values(), strict=True))
            first = mb.scaled_dot_product_attention(**x)
            second = mb.scaled_dot_product_attention(**(x | {reads: first}))
            main.set_outputs([mb.identity(x=second, name="out")])
        out = mil.Program()
        out.add_function("main", main)
        return out

    plain, both = program(), program()
    kind = own(1, 4)
    kind(both)
    both.validate()
    assert [d.fired for d in kind.log] == [True, True]
    generator = np.random.default_rng(0)
    given = {n: generator.standard_normal((1, 2, 20, 8), np.float32) for n in "qkv"}
    want = torch.from_numpy(interpreter.run(plain, given)["out"])
    got = torch.from_numpy(interpreter.run(both, given)["out"])
    bound = tolerance.row_bound(want, want.double(), torch.full((20,), 20), 8, 2)
    assert bool((tolerance.row_error(got, want) <= bound).all())


def test_a_second_run_leaves_the_pieces_alone() -> None:
    what = Form((1, 2, 2048, 8), (1, 2, 9, 8), (1, 2, 9, 8))
    program = sliced(what, own(None, 16))
    before = op_types(program.functions["main"])
    again = SlicedQ()
    again(program)
    assert again.log == []
    assert op_types(program.functions["main"]) == before


def test_half_precision_that_overflows_behind_the_product_does_not_here() -> None:
    """Queries and keys of 32 in 64 dimensions: products of 65536, scores of 8192."""
    shape = (1, 1, 64, 64)
    what = Form(shape, shape, shape, "float16")
    program = sliced(what, own(None, 16))
    x = inputs_for(what, 0, level=32.0)
    assert bool(run(program, what, x.q, x.k, x.v, None).isfinite().all())
    assert not problem(what, program, level=32.0)


@pytest.mark.parametrize("mask_dtype", ["bool", "float32", "float16"])
def test_a_row_that_sees_nothing_is_nan_as_by_the_op_itself(mask_dtype: str) -> None:
    what = form(70, mask=(70, 9), mask_dtype=mask_dtype)
    x = inputs_for(what, 0)
    assert x.mask is not None
    blind = (x.mask if mask_dtype == "bool" else x.mask != -torch.inf).any(-1).logical_not()
    assert bool(blind.any())
    plain = run(fused(what), what, x.q, x.k, x.v, x.mask)
    got = run(sliced(what, own(None, 16)), what, x.q, x.k, x.v, x.mask)
    assert torch.equal(got.isnan(), plain.isnan())
    assert torch.equal(got.isnan().any(-1)[0, 0], blind)


def test_a_float32_mask_of_lowest_numbers_stays_finite_in_half_precision() -> None:
    """Cast to half precision it would be minus infinity, and a row full of it NaN."""
    what = form(70, dtype="float16", mask=(70, 9), mask_dtype="float32")
    x = inputs_for(what, 0)
    low = torch.full((70, 9), torch.finfo(torch.float32).min)
    assert bool(run(sliced(what, own(None, 16)), what, x.q, x.k, x.v, low).isfinite().all())


def test_a_mask_wider_than_the_scores_is_left_to_the_op() -> None:
    decision, _ = decide(form(70, mask=(2, 2, 70, 9)))
    assert (decision.fired, decision.reason) == (
        False,
        "the mask 2×2×70×9 is wider than the scores",
    )


def test_a_dynamic_length_below_the_divider_is_left_whole() -> None:
    """Core ML does not accept a piece without rows."""
    what = form(5, dynamic=frozenset({"length"}))
    decision, program = decide(what, own(1, DIVIDER))
    assert f"from {DIVIDER} rows on" in decision.reason
    x = inputs_for(what, 0)
    assert torch.equal(*(run(p, what, x.q, x.k, x.v, None) for p in (program, fused(what))))


@pytest.mark.parametrize("fused_op", [True, False], ids=["fused", "written out"])
def test_scores_of_constants_are_not_stored_as_weights(*, fused_op: bool) -> None:
    shape, given = (1, 2, 70, 8), np.ones((1, 2, 70, 8), np.float32)
    value = mb.placeholder(shape=shape, dtype=types.fp32)
    bias = mb.placeholder(shape=(70, 70), dtype=types.fp32)
    with mil.Function({"v": value, "bias": bias}, opset_version=ct.target.iOS18) as main:
        v, mask = main.inputs["v"], main.inputs["bias"]
        q, k = (mb.const(val=given * n) for n in (1, 2))
        if fused_op:
            out = mb.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mask)
        else:
            scores = mb.add(x=mb.matmul(x=q, y=k, transpose_y=True), y=mask)
            out = mb.matmul(x=mb.softmax(x=scores, axis=-1), y=v)
        main.set_outputs([mb.identity(x=out, name="out")])
    program = mil.Program()
    program.add_function("main", main)
    kind, before = SlicedQ(), op_types(main)
    kind(program)
    assert kind.log.fired == []
    assert ["constants" in d.reason for d in kind.log] == [True] * fused_op
    assert op_types(main) == before


def test_a_width_that_is_not_known_is_left_to_the_op() -> None:
    shape = (1, 2, 70, mil.get_new_symbol())
    placeholders = {n: mb.placeholder(shape=shape, dtype=types.fp32) for n in "qkv"}
    with mil.Function(placeholders, opset_version=ct.target.iOS18) as main:
        x = dict(zip(("query", "key", "value"), main.inputs.values(), strict=True))
        main.set_outputs([mb.scaled_dot_product_attention(**x)])
    program = mil.Program()
    program.add_function("main", main)
    kind = SlicedQ()
    kind(program)
    (decision,) = kind.log
    assert not decision.fired
    assert "width is known at run time only" in decision.reason


def test_leading_ones_that_the_query_has_not_are_no_obstacle() -> None:
    what = Form((2, 70, 8), (2, 9, 8), (2, 9, 8), mask=(1, 1, 70, 9))
    x = inputs_for(what, 0)
    assert x.mask is not None
    got = run(sliced(what, own(None, 16)), what, x.q, x.k, x.v, x.mask)
    same = Form((2, 70, 8), (2, 9, 8), (2, 9, 8), mask=(70, 9))
    want = run(sliced(same, own(None, 16)), same, x.q, x.k, x.v, x.mask[0, 0])
    assert not problem(same, sliced(same, own(None, 16)))
    assert np.array_equal(got.numpy(), want.numpy(), equal_nan=True)


def test_pieces_of_an_attention_that_another_pass_wrote_name_each_pass_once() -> None:
    """A piece gets the scopes of its attention already from the place where it is written."""

    @mb.program(input_specs=[mb.TensorSpec((1, 2, 70, 8))] * 3, opset_version=ct.target.iOS18)
    def program(q: Any, k: Any, v: Any) -> Any:
        with mb.scope(ScopeInfo(source=ScopeSource.COREMLTOOLS_GRAPH_PASS, data="another")):
            return mb.scaled_dot_product_attention(query=q, key=k, value=v)

    SlicedQ()(program)
    for op in program.functions["main"].operations:
        assert op.scopes[ScopeSource.COREMLTOOLS_GRAPH_PASS] == ["another", "SlicedQ"]
