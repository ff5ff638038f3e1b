"""Models converted with the sliced-Q pass in their pipeline, as its users convert them."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any, Literal

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil.scope import ScopeSource
from torch import Tensor, nn
from torch.nn import functional

from harness.checks import run_check
from harness.mil import interpreter, liveness
from harness.mil.conversion import convert, hushed
from harness.mil.errors import InputError
from harness.reference import tolerance
from harness.run import plan
from harness.schemes.sliced_q import chunks
from harness.schemes.sliced_q.log import Log
from harness.schemes.sliced_q.mil_pass import DIVIDER, SlicedQ, pipeline
from harness.schemes.sliced_q.torch_graph import sliced_attention
from harness.subjects.coreml.sliced_q import Predict
from harness.subjects.coreml.sliced_q_judge import inputs_for
from harness.subjects.coreml.sliced_q_programs import (
    ATTENTION,
    SHIPPED,
    Form,
    arrays,
    model,
    op_types,
    own,
    run,
    sliced,
)

HEADS, WIDTH = 4, 16
HIDDEN = HEADS * WIDTH
SHAPE = (1, 2, 29, 64)

Kind = Literal["default scale", "own scale", "torch operation"]
KINDS: tuple[Kind, ...] = ("default scale", "own scale", "torch operation")


class Block(nn.Module):
    """x plus attention over x, under an additive mask (1, 1, n, n)."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.kind = kind
        self.into = nn.Parameter(torch.randn(3 * HIDDEN, HIDDEN, generator=generator) / 8, False)
        self.out = nn.Parameter(torch.randn(HIDDEN, HIDDEN, generator=generator) / 8, False)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = (
            t.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)
            for t in functional.linear(x, self.into).chunk(3, -1)
        )
        if self.kind == "torch operation":
            y = sliced_attention(q, k, v, mask)
        else:
            scale = 0.25 if self.kind == "own scale" else None
            y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
        return x + functional.linear(y.transpose(1, 2).flatten(2), self.out)


def inputs(rows: int) -> tuple[Tensor, Tensor]:
    x = torch.randn(1, rows, HIDDEN, generator=torch.Generator().manual_seed(rows))
    return x, torch.full((rows, rows), -100.0).triu(1)[None, None]


@cache
def converted(
    kind: Kind, rows: int, precision: Any = "float32", sliced: bool = True, divider: int = DIVIDER
) -> tuple[Any, Log]:
    log = Log()
    passes = pipeline(seq_length_divider=divider, log=log) if sliced else None
    return convert(Block(kind), inputs(rows), precision, passes), log


def answer(program: Any, rows: int) -> Tensor:
    names = list(program.functions["main"].inputs)
    given = {name: x.numpy() for name, x in zip(names, inputs(rows), strict=True)}
    (out,) = interpreter.run(program, given).values()
    return torch.from_numpy(np.asarray(out))


def is_right(got: Tensor, kind: Kind, rows: int, precision: str = "float32") -> bool:
    """Every row within the bound of the float64 module."""
    own, exact = (
        Block(kind).to(dtype)(*(t.to(dtype) for t in inputs(rows)))
        for dtype in (getattr(torch, precision), torch.float64)
    )
    bound = tolerance.row_bound(own, exact, torch.arange(1, rows + 1), HIDDEN, 4)
    return bool((tolerance.row_error(got, exact) <= bound).all())


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["default scale", "own scale"])
def test_a_converted_block_is_sliced_and_right(kind: Kind, precision: str) -> None:
    rows = 130
    model, log = converted(kind, rows, precision)
    (decision,) = log
    assert decision.fired
    assert decision.form == ("fused" if kind == "default scale" else "written out")
    assert sum(decision.parts) == rows
    program = interpreter.program_of(model)
    types = op_types(program.functions["main"])
    assert (types.count("softmax"), types.count("concat"), ATTENTION in types) == (16, 1, False)
    assert is_right(answer(program, rows), kind, rows, precision)


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("kind", ["default scale", "own scale"])
def test_every_piece_says_which_line_and_which_pass_it_is_from(kind: Kind, precision: str) -> None:
    main = interpreter.program_of(converted(kind, 130, precision)[0]).functions["main"]
    scopes = [op.scopes for op in main.operations]
    written = [s for s in scopes if "SlicedQ" in s.get(ScopeSource.COREMLTOOLS_GRAPH_PASS, ())]
    assert len(written) > 4 * DIVIDER
    for scope in written:
        (line,) = scope[ScopeSource.EXIR_STACK_TRACE]
        assert line.endswith(
            "y = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)"
        )
        assert scope[ScopeSource.COREMLTOOLS_GRAPH_PASS][0] == "SlicedQ"


def test_the_shipped_pass_does_nothing_for_attention_with_a_scale_of_its_own() -> None:
    """Nor does it say so: the frontend writes it out, and the pass knows only the fused op."""
    passes = ct.PassPipeline.DEFAULT
    passes.append_pass(SHIPPED)
    passes.set_options(SHIPPED, {"min_seq_length": 1, "seq_length_divider": DIVIDER})
    program = interpreter.program_of(convert(Block("own scale"), inputs(128), "float32", passes))
    assert op_types(program.functions["main"]).count("softmax") == 1


def test_the_torch_operation_arrives_in_pieces_without_any_pass() -> None:
    model, _ = converted("torch operation", 130, sliced=False)
    program = interpreter.program_of(model)
    assert op_types(program.functions["main"]).count("softmax") == DIVIDER
    assert is_right(answer(program, 130), "torch operation", 130)


@pytest.mark.parametrize("kind", ["default scale", "own scale"])
def test_a_whole_conversion_keeps_the_order_of_the_pieces_and_with_it_the_gain(kind: Kind) -> None:
    rows = 512

    def peak(divider: int) -> int:
        program = interpreter.program_of(converted(kind, rows, divider=divider)[0])
        return liveness.peak(program.functions["main"]).fused.nbytes

    attention = chunks.peak(chunks.split(rows, DIVIDER, rows, WIDTH), rows, WIDTH) * HEADS * 4
    others = 4 * rows * HIDDEN * 4  # query, keys, values, and the block's residual
    assert peak(DIVIDER) <= attention + others
    assert peak(1) >= 2 * HEADS * rows * rows * 4


# --- lengths known at run time only ----------------------------------------------------------


def dynamic(kind: Kind, least: int, most: int, **options: Any) -> tuple[Any, Log]:
    rows, log = torch.export.Dim("rows", min=least, max=most), Log()
    model = convert(
        Block(kind),
        inputs(max(least, 20)),
        pipeline=pipeline(log=log, **options),
        dynamic_shapes=({1: rows}, {2: rows, 3: rows}),
    )
    return interpreter.program_of(model), log


@pytest.mark.parametrize("kind", ["default scale", "own scale"])
def test_a_program_decides_at_run_time_where_its_range_leaves_it_open(kind: Kind) -> None:
    program, log = dynamic(kind, 2, 4096, min_seq_length=64)
    (decision,) = log
    assert decision.fired
    assert "from 64 rows on" in decision.reason
    for rows in (2, 63, 64, 131):
        assert is_right(answer(program, rows), kind, rows)


def test_a_range_below_the_threshold_is_left_alone() -> None:
    program, log = dynamic("default scale", 2, 1279)
    assert [str(d).rpartition(": ")[2] for d in log] == ["below 1280"]
    assert not {"cond", "softmax"} & set(op_types(program.functions["main"]))


def test_a_range_above_the_threshold_needs_no_branch() -> None:
    program, log = dynamic("default scale", 64, 4096, min_seq_length=64)
    assert log[0].fired
    types = op_types(program.functions["main"])
    assert (types.count("softmax"), "cond" in types, ATTENTION in types) == (DIVIDER, False, False)
    assert is_right(answer(program, 131), "default scale", 131)
    for rows in (63, 4097):
        with pytest.raises(InputError, match=rf" with \w+ from 64 to 4096, given \(1, {rows}, "):
            answer(program, rows)


class Masked(nn.Module):
    """Attention under a mask of booleans that is an input."""

    def forward(self, q: Tensor, mask: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, q, q, attn_mask=mask)


def test_a_boolean_input_that_only_a_branch_reads_is_still_cast() -> None:
    """Core ML has no boolean inputs, and the converter does not cast them back inside branches."""
    rows = torch.export.Dim("rows", min=2, max=4096)
    given = torch.randn(1, 2, 100, 16), torch.ones(100, 100).tril().bool()
    masked = convert(
        Masked(),
        given,
        pipeline=pipeline(min_seq_length=64),
        dynamic_shapes=({2: rows}, {0: rows, 1: rows}),
    )
    program = interpreter.program_of(masked)
    names = list(program.functions["main"].inputs)
    values = (given[0].numpy(), given[1].float().numpy())
    (out,) = interpreter.run(program, dict(zip(names, values, strict=True))).values()
    exact = Masked()(given[0].double(), given[1])
    bound = tolerance.row_bound(Masked()(*given), exact, torch.arange(1, 101), 16, 1)
    assert bool((tolerance.row_error(torch.from_numpy(np.asarray(out)), exact) <= bound).all())


@pytest.mark.parametrize(
    "what",
    [
        Form(SHAPE, SHAPE, SHAPE, mask=(29, 29)),
        Form(SHAPE, SHAPE, SHAPE, "float16", mask=(29, 29), mask_dtype="float32"),
        Form(SHAPE, SHAPE, SHAPE, mask=(1, 1, 29, 29), mask_dtype="float32"),
    ],
    ids=str,
)
def test_a_program_of_a_subject_becomes_a_model_that_says_the_same(what: Form) -> None:
    """The program that macOS runs for a prediction is the one that is interpreted here."""
    program = sliced(what, own(1, 3))
    x = inputs_for(what, 0)
    want = run(program, what, x.q, x.k, x.v, x.mask)
    given = arrays(what, x.q, x.k, x.v, x.mask)
    given["mask"] = given["mask"].astype(np.float32)
    (got,) = interpreter.run(interpreter.program_of(model(program)), given).values()
    assert np.array_equal(got.astype(want.numpy().dtype), want.numpy(), equal_nan=True)


def test_predictions_are_not_claimed_elsewhere_than_on_macos(monkeypatch: Any) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    planned = plan.items(Predict)
    assert {check for check, _ in planned} == {"values"}
    finding = run_check(Predict, *planned[0])
    assert (finding.status, "needs macOS" in finding.message) == ("not-claimed", True)


# --- stored models ---------------------------------------------------------------------------


def int8(model: Any) -> Any:
    config = cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=128)
    with hushed():
        return cto.linear_quantize_weights(model, cto.OptimizationConfig(global_config=config))


def unpacked(program: Any) -> int:
    return sum(t.startswith("constexpr_") for t in op_types(program.functions["main"]))


def test_int8_weights_before_or_after_slicing_give_the_same_model(tmp_path: Path) -> None:
    """Once quantized after a sliced conversion, once sliced after loading a quantized file."""
    rows = 130
    after = interpreter.program_of(int8(converted("default scale", rows)[0]))
    path = tmp_path / "small.mlpackage"
    fused = int8(converted("default scale", rows, sliced=False)[0])
    fused.save(str(path))
    plain = answer(interpreter.program_of(fused), rows)
    program = interpreter.load(str(path))
    sliced_q = SlicedQ()
    sliced_q(program)
    program.validate()
    assert [d.fired for d in sliced_q.log] == [True]
    assert unpacked(program) == unpacked(after) == 2
    got = answer(after, rows)
    assert got.equal(answer(program, rows))
    assert not got.equal(answer(interpreter.program_of(converted("default scale", rows)[0]), rows))
    # Compared with the same quantized weights unsliced, not with the unquantized module.
    bound = tolerance.row_bound(plain, plain.double(), torch.arange(1, rows + 1), HIDDEN, 4)
    assert bool((tolerance.row_error(got, plain) <= bound).all())


def test_a_saved_model_answers_bit_for_bit_as_the_converted_one(tmp_path: Path) -> None:
    model, _ = converted("default scale", 130)
    path = tmp_path / "sliced.mlpackage"
    model.save(str(path))
    want = answer(interpreter.program_of(model), 130)
    assert answer(interpreter.load(str(path)), 130).equal(want)
