"""Whole MIL programs: converted, reloaded, compressed, with states and branches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coremltools as ct
import coremltools.optimize.coreml as cto
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import types
from mil_blocks import Block, arrays, block_inputs
from mil_programs import IOS18, answer, block_model, bound_of, build, mb
from torch import Tensor, nn

from harness.memory import measure
from harness.mil.conversion import Precision, convert, hushed, input_names
from harness.mil.errors import InputError
from harness.mil.interpreter import Interpreter, load, make_states, program_of, run
from harness.mil.liveness import peak
from harness.reference import tolerance


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_converted_block_answers_as_torch_does(precision: Precision) -> None:
    inputs, dtype = block_inputs(), getattr(torch, precision)
    exact = Block().double()(*(t.double() for t in inputs.values()))
    own = Block().to(dtype)(*(t.to(dtype) for t in inputs.values()))
    got = answer(program_of(block_model(precision)), arrays(inputs))
    assert got.dtype == dtype
    assert (tolerance.row_error(got, exact) <= bound_of(own, exact)).all()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_saved_model_answers_bit_for_bit_as_the_converted_one(
    precision: Precision, tmp_path: Path
) -> None:
    model = block_model(precision)
    path = tmp_path / "block.mlpackage"
    model.save(str(path))
    reloaded = load(path)
    inputs = arrays(block_inputs())
    assert answer(reloaded, inputs).equal(answer(program_of(model), inputs))
    assert (
        peak(reloaded.functions["main"]).weights
        == peak(program_of(model).functions["main"]).weights
    )


@pytest.mark.parametrize("mode", ["linear_symmetric", "linear"])
def test_int8_weights_are_unpacked(mode: str) -> None:
    """The answer changes, and is that of a torch run with the weights that coremltools stored."""
    with hushed():
        config = cto.OptimizationConfig(
            global_config=cto.OpLinearQuantizerConfig(mode=mode, weight_threshold=128)
        )
        small = cto.linear_quantize_weights(block_model(), config)
    program = program_of(small)
    inputs = block_inputs()
    got, plain = answer(program, arrays(inputs)), answer(program_of(block_model()), arrays(inputs))
    unpacked = {
        op.outputs[0].name: op.materialized_val_inference()
        for op in program.functions["main"].operations
        if op.op_type.startswith("constexpr_")
    }
    assert len(unpacked) == 7
    module = Block()
    for weight in module.parameters():
        near = [
            torch.from_numpy(np.asarray(value)).reshape(weight.shape)
            for value in unpacked.values()
            if value.size == weight.numel()
            and np.abs(value.reshape(weight.shape) - weight.numpy()).max() < 0.05
        ]
        if weight.dim() > 1:
            assert len(near) == 1
            assert not near[0].equal(weight)
            weight.copy_(near[0])
    exact = module.double()(*(t.double() for t in inputs.values()))
    own = module.float()(*inputs.values())
    assert (tolerance.row_error(got, exact) <= bound_of(own, exact)).all()
    assert not got.equal(plain)
    sizes, full = peak(program.functions["main"]), peak(program_of(block_model()).functions["main"])
    assert sizes.weights < full.weights / 3
    assert sizes.outputs_only.nbytes == full.outputs_only.nbytes


class Counter(nn.Module):
    """Adds x into a slot of a buffer and returns the sum of all slots."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("kept", torch.zeros(4, 3))

    def forward(self, x: Tensor, slot: Tensor) -> Tensor:
        hot = (torch.arange(4) == slot).to(x.dtype)[:, None]
        self.kept.copy_(self.kept + hot * x)
        return self.kept.sum(0)


def test_states_go_on_from_run_to_run_and_belong_to_their_owner() -> None:
    model = convert(Counter(), (torch.zeros(3), torch.zeros(1, dtype=torch.int32)))
    program = program_of(model)
    x, slot = (input_names(model)[i] for i in (0, 1))
    mine, other = make_states(program), make_states(program)
    ones = np.ones(3, np.float32)
    for n in range(3):
        (out,) = run(program, {x: ones, slot: np.array([n], np.int32)}, mine).values()
        assert (out == n + 1).all()
    ((name, kept),) = mine.items()
    assert kept.dtype == np.float16
    assert kept.sum(1).tolist() == [3, 3, 3, 0]
    assert not other[name].any()
    with pytest.raises(InputError, match=f"'{name}' is missing"):
        run(program, {x: ones, slot: np.array([0], np.int32)})


@pytest.mark.parametrize(("first", "want"), [(1.0, 6.0), (-1.0, -3.0)])
def test_a_branch_is_taken_by_its_condition(first: float, want: float) -> None:
    """The branches read a value from around them, which must live until then."""

    @build((3,))
    def program(x: Any) -> Any:
        around = mb.mul(x=x, y=2.0)
        positive = mb.greater(
            x=mb.slice_by_index(x=x, begin=[0], end=[1], squeeze_mask=[True]), y=0.0
        )
        return mb.cond(
            pred=positive,
            _true_fn=lambda: mb.mul(x=around, y=3.0),
            _false_fn=lambda: mb.add(x=around, y=-1.0),
        )

    x = np.array([first, 5, 5], np.float32)
    assert answer(program, {"x": x})[0] == want


def test_symbols_are_one_length_wherever_they_occur() -> None:
    length = ct.converters.mil.mil.get_new_symbol()

    @mb.program(
        input_specs=[mb.TensorSpec((length, 2)), mb.TensorSpec((length, 2))], opset_version=IOS18
    )
    def program(x: Any, y: Any) -> Any:
        return mb.add(x=x, y=y)

    interpreter = Interpreter(program)
    for n in (1, 3):
        ones = np.ones((n, 2), np.float32)
        (out,) = interpreter.run({"x": ones, "y": ones}).values()
        assert out.shape == (n, 2)
    with pytest.raises(
        InputError, match=r"input 'y' declares shape \(is\d+, 2\) with .*given \(1, 2\)"
    ):
        interpreter.run({"x": np.ones((3, 2), np.float32), "y": np.ones((1, 2), np.float32)})


def test_values_that_nothing_reads_again_are_dropped() -> None:
    """Long chains would otherwise keep every score of every head."""
    n, length = 1 << 18, 20

    @build((n,))
    def program(x: Any) -> Any:
        for _ in range(length):
            x = mb.mul(x=x, y=1.5)
        return x

    interpreter, x = Interpreter(program), np.ones(n, np.float32)
    most = measure(lambda: interpreter.run({"x": x})).peak_bytes
    assert most == 2 * x.nbytes  # a product and its inputs


def test_what_was_read_from_a_state_is_its_value_at_that_time() -> None:
    """A view of the state would change when the state is written later."""

    @mb.program(input_specs=[mb.StateTensorSpec((2,), dtype=types.fp16)], opset_version=IOS18)
    def program(state: Any) -> Any:
        before = mb.read_state(input=state)
        once = mb.coreml_update_state(state=state, value=mb.add(x=before, y=np.float16(1)))
        twice = mb.coreml_update_state(state=state, value=mb.add(x=once, y=np.float16(1)))
        return before, once, twice

    states = make_states(program)
    for start in (0, 2):
        before, once, twice = run(program, {}, states).values()
        assert [list(x) for x in (before, once, twice)] == [[start + i] * 2 for i in range(3)]
