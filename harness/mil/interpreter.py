"""Runs the program of a converted Core ML model in NumPy and torch, op by op.

    model = ct.convert(exported, convert_to="mlprogram", skip_model_load=True)
    outputs = run(program_of(model), {"x": x})

Each op is run by exactly one of: `kernels` (arithmetic, written in this package), `inference`
(coremltools' own code), or this module (states and branches).  `prepared.coverage` lists them.  Any
other op raises an error that names it.  Every value must have the shape and dtype that the program
declares for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from harness.mil.arrays import Array, Value
from harness.mil.errors import DeclaredError, InputError, MilError
from harness.mil.prepared import Prepared, PreparedOp, prepare
from harness.mil.values import (
    Declared,
    Symbols,
    declared_dtype,
    declared_ranges,
    declared_shape,
)

States = dict[str, Array]


def run(
    program: Any,
    inputs: Mapping[str, Array | Tensor],
    states: States | None = None,
    function: str = "main",
) -> dict[str, Array]:
    """Run a program once: its outputs by name.  See `Interpreter` and `Interpreter.run`."""
    return Interpreter(program, function).run(inputs, states)


def make_states(program: Any, function: str = "main") -> States:
    """Zeros for every state of a function, by name, like those of Core ML's `make_state`."""
    return {
        name: np.zeros(declared_shape(var), declared_dtype(var))
        for name, var in program.functions[function].inputs.items()
        if _is_state(var)
    }


class Interpreter:
    """A function of a MIL program (see `program_of` and `load`), ready to be run many times.

    Raises UnknownOpError naming an op that there is no code for, and MilError if the program does
    not have the function.
    """

    def __init__(self, program: Any, function: str = "main") -> None:
        if function not in program.functions:
            raise MilError(f"no function {function!r}; the program has {list(program.functions)}")
        self.main = program.functions[function]
        self._inputs = {name: Declared.of(var) for name, var in self.main.inputs.items()}
        self._ranges = declared_ranges(self.main)
        self._blocks: dict[Any, Prepared] = {}
        self._prepare(self.main, {})

    def run(
        self, inputs: Mapping[str, Array | Tensor], states: States | None = None
    ) -> dict[str, Array]:
        """Run the function: its outputs by name.

        inputs: by name, in the declared dtypes; nothing is cast.
        states: from `make_states`; updated in place.

        Raises InputError for inputs or states that the program does not take, DeclaredError naming
        a value whose shape or dtype is not as declared, and MilError naming an op whose code fails.
        """
        states = states or {}
        given = {**inputs, **states}
        if set(given) - set(self._inputs):
            unknown = sorted(set(given) - set(self._inputs))
            raise InputError(f"the program has no input {unknown}; it has {list(self._inputs)}")
        symbols, env = Symbols(self._ranges), dict[Any, Value]()
        for name, var in self.main.inputs.items():
            source = states if _is_state(var) else inputs
            env[var] = _given(name, source, self._inputs[name], symbols)
        results = self._block(self.main, env, symbols)
        return {var.name: value for var, value in zip(self.main.outputs, results, strict=True)}

    def _prepare(self, block: Any, outer: dict[Any, Value]) -> None:
        prepared = self._blocks[block] = prepare(block, outer)
        for step in prepared.ops:
            for inner in step.op.blocks:
                self._prepare(inner, outer | prepared.weights)

    def _block(self, block: Any, env: dict[Any, Value], symbols: Symbols) -> list[Value]:
        """Run all ops of a block: the values that it returns.

        A value is dropped from `env` as soon as no later op reads it.
        """
        prepared = self._blocks[block]
        env.update(prepared.weights)
        for step in prepared.ops:
            outputs = self._outputs(step, env, symbols)
            if len(outputs) != len(step.declared):
                raise DeclaredError(
                    f"{step.op.op_type} {step.op.name!r} declares {len(step.declared)} outputs, "
                    f"computed {len(outputs)}"
                )
            for var, want, value in zip(step.op.outputs, step.declared, outputs, strict=True):
                symbols.check(want, value)
                env[var] = value
            for var in step.dead:
                env.pop(var, None)
        return [env[var] for var in prepared.outputs]

    def _outputs(self, step: PreparedOp, env: dict[Any, Value], symbols: Symbols) -> list[Value]:
        op = step.op
        if step.code is not None:
            given = {
                name: [env[v] for v in var] if isinstance(var, list | tuple) else env[var]
                for name, var in step.inputs.items()
            }
            return _computed(step, given)
        if op.op_type == "cond":
            return self._block(op.blocks[0 if bool(env[op.pred]) else 1], env, symbols)
        if op.op_type == "coreml_update_state":
            _update(op, env[op.state], env[op.value])
            return [env[op.state].copy()]
        assert op.op_type == "read_state", op.op_type
        return [env[op.input].copy()]


def _computed(step: PreparedOp, given: dict[str, Value]) -> list[Value]:
    """The outputs of an op's code.  Raises MilError naming the op if the code fails."""
    assert step.code is not None
    try:
        return step.code(given)
    except MilError:
        raise
    except Exception as error:  # torch, NumPy and coremltools can raise anything on bad inputs
        why = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise MilError(f"{step.op.op_type} {step.op.name!r} cannot be computed: {why}") from error


def _update(op: Any, state: Array, value: Array) -> None:
    if state.shape != value.shape or state.dtype != value.dtype:
        raise DeclaredError(
            f"{op.op_type} {op.name!r}: the state is {state.dtype} {state.shape}, "
            f"the value {value.dtype} {value.shape}"
        )
    state[...] = value


def _is_state(var: Any) -> bool:
    from coremltools.converters.mil.mil import types

    return bool(types.is_state(var.sym_type))


def _given(
    name: str, source: Mapping[str, Array | Tensor], want: Declared, symbols: Symbols
) -> Array:
    if name not in source:
        raise InputError(
            f"{name!r} is missing; given: {sorted(source)}; `make_states` makes the states"
        )
    given = source[name]
    value = given.detach().numpy() if isinstance(given, Tensor) else np.asarray(given)
    try:
        symbols.check(want, value, came="given")
    except DeclaredError as error:
        raise InputError(str(error)) from None
    return value


def program_of(model: Any) -> Any:
    """The MIL program of a model that was converted in this process, after all passes.

    Raises MilError for any other model; `load` reads the program of a saved one.
    """
    program = getattr(model, "_mil_program", None)
    if program is None:
        raise MilError(
            "the model holds no MIL program: convert it to an mlprogram, or load its file"
        )
    return program


def load(path: str) -> Any:
    """The program of a saved .mlpackage, with its weights, parsed from the file.

    Raises MilError for a model that is not an ML program.
    """
    import coremltools as ct
    from coremltools.converters.mil.frontend.milproto.load import load as parse

    model = ct.models.MLModel(str(path), skip_model_load=True)
    spec = model.get_spec()
    if spec.WhichOneof("Type") != "mlProgram":
        raise MilError(f"{path} holds a {spec.WhichOneof('Type')}, not an mlProgram")
    return parse(
        spec, specification_version=spec.specificationVersion, file_weights_dir=model.weights_dir
    )
