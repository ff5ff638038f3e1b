"""Runs the program of a converted Core ML model in NumPy and torch, op by op.

    model = ct.convert(exported, convert_to="mlprogram", skip_model_load=True)
    outputs = run(program_of(model), {"x": x})

Every op is covered by exactly one of: `kernels` (arithmetic, written here), `inference`
(coremltools' own code), or this module (constants, states, branches).  Any other op is an error
that names it.  Each value is held to the shape and dtype that the program declares for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from harness.mil import maths, products, writes
from harness.mil.blocks import last_reads, reads
from harness.mil.errors import DeclaredError, InputError, MilError, UnknownOpError
from harness.mil.inference import REVIEWED, infer
from harness.mil.kernels import KERNELS, call
from harness.mil.values import Array, Symbols, Value, declared_dtype, declared_shape

#: Kernels register themselves when their module is imported.
_KERNEL_MODULES = (maths, products, writes)

#: Compressed weights, unpacked by their own code.
UNPACKED = frozenset(
    {
        "constexpr_affine_dequantize",
        "constexpr_blockwise_shift_scale",
        "constexpr_cast",
        "constexpr_lut_to_dense",
        "constexpr_sparse_to_dense",
    }
)

#: Ops that need more than the values of their inputs.
STRUCTURE = UNPACKED | {"const", "cond", "read_state", "coreml_update_state"}

States = dict[str, Array]


def coverage() -> dict[str, str]:
    """Every op that can be run, and by which code: "kernel", "value_inference" or "structure"."""
    ops = dict.fromkeys(REVIEWED, "value_inference") | dict.fromkeys(KERNELS, "kernel")
    return dict(sorted((ops | dict.fromkeys(STRUCTURE, "structure")).items()))


def run(
    program: Any,
    inputs: Mapping[str, Array | Tensor],
    states: States | None = None,
    function: str = "main",
) -> dict[str, Array]:
    """The outputs of a function of a program, by name.

    program: a MIL program, as `program_of` or `load` give it.  inputs: by name; cast to nothing:
    the dtypes must be the declared ones.  states: from `make_states`, updated in place.

    Raises InputError for inputs or states that are not the program's, UnknownOpError naming an op,
    DeclaredError naming a value that is not as declared.
    """
    main = program.functions[function]
    symbols = Symbols()
    env: dict[Any, Value] = {}
    held = {} if states is None else states
    for var in main.inputs.values():
        if _is_state(var):
            env[var] = _state(var, held)
        else:
            env[var] = _input(var, inputs, symbols)
    extra = set(inputs) - set(main.inputs)
    if extra:
        raise InputError(f"the program has no input {sorted(extra)}; it has {list(main.inputs)}")
    results = Run(env, symbols).block(main)
    return {var.name: value for var, value in zip(main.outputs, results, strict=True)}


def make_states(program: Any, function: str = "main") -> States:
    """Zeros for every state of a function, by name, as Core ML's `make_state` gives them."""
    main = program.functions[function]
    return {
        name: np.zeros(declared_shape(var), declared_dtype(var))
        for name, var in main.inputs.items()
        if _is_state(var)
    }


class Run:
    """One run of a function: what every variable holds, as long as an op to come reads it."""

    def __init__(self, env: dict[Any, Value], symbols: Symbols) -> None:
        self.env, self.symbols = env, symbols
        self._structure: dict[str, Callable[[Any], list[Value]]] = {
            "const": lambda op: [_constant(op)],
            "cond": lambda op: self.block(op.blocks[0 if bool(self.env[op.pred]) else 1]),
            "read_state": lambda op: [self.env[op.input].copy()],
            "coreml_update_state": self._update_state,
        }
        self._structure |= dict.fromkeys(UNPACKED, _unpacked)
        assert set(self._structure) == STRUCTURE

    def block(self, block: Any) -> list[Value]:
        """Run all ops of a block; the values of its outputs."""
        ops = list(block.operations)
        last = last_reads(ops, block.outputs)
        for at, op in enumerate(ops):
            outputs = self._outputs(op)
            if len(outputs) != len(op.outputs):
                raise DeclaredError(
                    f"{op.op_type} {op.name!r} declares {len(op.outputs)} outputs, "
                    f"computed {len(outputs)}"
                )
            for var, value in zip(op.outputs, outputs, strict=True):
                if isinstance(value, np.ndarray):
                    self.symbols.check(var, value)
                self.env[var] = value
            for var in {*reads(op), *op.outputs}:
                if last.get(var, at) == at:
                    self._forget(var, block)
        return [self.env[var] for var in block.outputs]

    def _forget(self, var: Any, block: Any) -> None:
        """Drop a value that no op of its own block reads again; outer blocks may."""
        if var.op is not None and var.op.enclosing_block is block:
            self.env.pop(var, None)

    def _outputs(self, op: Any) -> list[Value]:
        kind = op.op_type
        if kind in self._structure:
            return self._structure[kind](op)
        args = {
            name: [self.env[v] for v in var] if isinstance(var, list | tuple) else self.env[var]
            for name, var in op.inputs.items()
        }
        if kind in KERNELS:
            return list(call(kind, args))
        if kind in REVIEWED:
            return list(infer(op, args))
        raise UnknownOpError(f"no code for the op {kind} ({op.name!r}); `coverage()` lists those")

    def _update_state(self, op: Any) -> list[Value]:
        state, value = self.env[op.state], self.env[op.value]
        if state.shape != value.shape or state.dtype != value.dtype:
            raise DeclaredError(
                f"{op.op_type} {op.name!r}: the state is {state.dtype} {state.shape}, "
                f"the value {value.dtype} {value.shape}"
            )
        state[...] = value
        return [state.copy()]


def _constant(op: Any) -> Value:
    value = op.outputs[0].val
    if isinstance(value, str | list):
        return value
    return np.asarray(value, dtype=declared_dtype(op.outputs[0]))


def _unpacked(op: Any) -> list[Value]:
    return [np.asarray(op.materialized_val_inference())]


def _is_state(var: Any) -> bool:
    from coremltools.converters.mil.mil import types

    return bool(types.is_state(var.sym_type))


def _input(var: Any, inputs: Mapping[str, Array | Tensor], symbols: Symbols) -> Array:
    if var.name not in inputs:
        raise InputError(f"input {var.name!r} is missing; given: {sorted(inputs)}")
    given = inputs[var.name]
    value = given.detach().numpy() if isinstance(given, Tensor) else np.asarray(given)
    try:
        symbols.check(var, value)
    except DeclaredError as error:
        raise InputError(str(error).replace("computed", "given")) from None
    return value


def _state(var: Any, states: States) -> Array:
    if var.name not in states:
        raise InputError(f"state {var.name!r} is missing; given: {sorted(states)} (make_states)")
    value, dtype, shape = states[var.name], declared_dtype(var), declared_shape(var)
    if value.dtype != dtype or value.shape != shape:
        raise InputError(
            f"state {var.name!r} must be {dtype} {shape}, got {value.dtype} {value.shape}"
        )
    return value


def program_of(model: Any) -> Any:
    """The program of a converted model as `mlprogram`, after all passes.

    Raises MilError for a model that was not converted here: `load` reads one from a file.
    """
    program = getattr(model, "_mil_program", None)
    if program is None:
        raise MilError("the model holds no MIL program: convert to mlprogram, or load its file")
    return program


def load(path: str) -> Any:
    """The program of a saved .mlpackage, parsed back from its file with its weights.

    Raises MilError for a model that is no ML program.
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
