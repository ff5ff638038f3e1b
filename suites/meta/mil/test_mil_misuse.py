"""MIL programs that cannot be run: what is missing, wrong or unknown is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil.mil import types
from mil_blocks import Block, arrays, block_inputs
from mil_programs import IOS18, answer, block_model, bound_of, build, mb

from harness.mil.__main__ import main as mil_main
from harness.mil.errors import DeclaredError, InputError, MilError, UnknownOpError
from harness.mil.interpreter import Interpreter, program_of, run
from harness.mil.kernels import KERNELS, Entry
from harness.reference import tolerance


def test_an_unknown_op_is_named() -> None:
    @build((1, 2, 4, 4))
    def program(x: Any) -> Any:
        return mb.max_pool(x=x, kernel_sizes=[2, 2], pad_type="valid", name="pooled")

    with pytest.raises(UnknownOpError, match=r"no code for the op max_pool \('pooled'\)"):
        run(program, {"x": np.zeros((1, 2, 4, 4), np.float32)})


def test_an_op_whose_code_fails_is_named() -> None:
    @mb.program(input_specs=[mb.TensorSpec((2, 3), types.int32)], opset_version=IOS18)
    def program(x: Any) -> Any:
        return mb.floor_div(x=x, y=mb.sub(x=x, y=x), name="by_zero")

    with pytest.raises(MilError, match=r"floor_div 'by_zero' cannot be computed: RuntimeError"):
        run(program, {"x": np.ones((2, 3), np.int32)})


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"'x' is missing; given: \[\]"),
        ({"x": np.zeros(3)}, "input 'x' declares float32, given float64"),
        ({"x": np.zeros(4, np.float32)}, r"input 'x' declares shape \(3,\), given \(4,\)"),
        ({"x": np.zeros(3, np.float32), "y": 0}, r"no input \['y'\]; it has \['x'\]"),
    ],
)
def test_inputs_that_are_not_the_programs_are_refused(inputs: Any, message: str) -> None:
    @build((3,))
    def program(x: Any) -> Any:
        return mb.relu(x=x)

    with pytest.raises(InputError, match=message):
        run(program, inputs)


def test_an_input_may_be_named_like_a_word_of_the_message() -> None:
    @mb.program(input_specs=[mb.TensorSpec((3,))], opset_version=IOS18)
    def program(computed_x: Any) -> Any:
        return mb.relu(x=computed_x)

    with pytest.raises(InputError) as caught:
        run(program, {"computed_x": np.zeros(3)})
    assert str(caught.value) == "input 'computed_x' declares float32, given float64"


def test_a_function_that_is_not_there_is_refused() -> None:
    @build((3,))
    def program(x: Any) -> Any:
        return mb.relu(x=x)

    with pytest.raises(MilError, match=r"no function 'decode'; the program has \['main'\]"):
        Interpreter(program, "decode")


def test_a_model_without_a_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "block.mlpackage"
    block_model().save(str(path))
    with pytest.raises(MilError, match="holds no MIL program"):
        program_of(ct.models.MLModel(str(path), skip_model_load=True))


# ── faults are found ────────────────────────────────────────────────────────────────────────────


def test_a_value_of_another_shape_or_dtype_is_caught_where_it_arises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program, inputs = program_of(block_model()), arrays(block_inputs())
    monkeypatch.setitem(KERNELS, "rsqrt", Entry(lambda x, epsilon: (x + epsilon)[..., 0], None))
    with pytest.raises(DeclaredError, match=r"rsqrt '.*' declares shape .* computed \(1, 20\)"):
        run(program, inputs)
    monkeypatch.undo()
    silu = next(op for op in program.functions["main"].operations if op.op_type == "silu")
    monkeypatch.setattr(silu.outputs[0], "_sym_type", types.tensor(types.fp16, (1, 20, 64)))
    with pytest.raises(DeclaredError, match=r"silu '.*' declares float16, computed float32"):
        run(program, inputs)


@pytest.mark.parametrize(
    ("op", "fault"),
    [
        ("scaled_dot_product_attention", lambda q, k, v, m: (q * 1.01, k, v, m)),
        ("scaled_dot_product_attention", lambda q, k, v, m: (q, k, v, m.roll(1, -1))),
        ("scaled_dot_product_attention", lambda q, k, v, m: (q, k.roll(1, 1), v, m)),
        ("linear", lambda x, w, b=None: (x, w * 1.001, b)),
        ("conv", lambda x, w, *more: (x, w.roll(1, 0), *more)),
        ("gelu", lambda x, _: (x, "TANH_APPROXIMATION")),
    ],
)
def test_a_faulty_op_breaks_the_bound(
    op: str, fault: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison with torch proves something only if it finds wrong arithmetic."""
    inputs = block_inputs()
    exact = Block().double()(*(t.double() for t in inputs.values()))
    own = Block()(*inputs.values())
    right = KERNELS[op].kernel
    names = list(signature(right).parameters)

    def wrong(**given: Any) -> Any:
        args = fault(*(given[name] for name in names if name in given))
        given |= dict(zip([name for name in names if name in given], args, strict=False))
        return right(**given)

    monkeypatch.setitem(KERNELS, op, Entry(wrong, KERNELS[op].like))
    got = answer(program_of(block_model()), arrays(inputs))
    assert (tolerance.row_error(got, exact) > bound_of(own, exact)).any()


# ── the command ─────────────────────────────────────────────────────────────────────────────────


def test_a_saved_model_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "block.mlpackage"
    block_model().save(str(path))
    assert mil_main([str(path)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"1  scaled_dot_product_attention +kernel", said)
    assert re.search(r"peak, fused: [\d,]+ bytes at scaled_dot_product_attention", said)
    assert said.count("workspace of") == 4  # two buffers of scores in each of the two bounds


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give one model"),
        (["nowhere.mlpackage"], "nowhere.mlpackage: no such file"),
        (["notes.mlmodel"], "notes.mlmodel is not a Core ML model"),
    ],
)
def test_what_is_no_model_is_refused_in_a_line(
    given: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.mlmodel").write_text("nothing of the kind")
    assert mil_main(given) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
