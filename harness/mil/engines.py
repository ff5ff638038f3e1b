"""Engines that run a converted model: the interpreter anywhere, Core ML itself on macOS.

Both take NumPy arrays by name, so that the same checks run on both.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from harness.contract import Unsupported
from harness.mil.arrays import Array

if TYPE_CHECKING:
    from harness.mil.interpreter import Interpreter

NEEDS_MACOS = "needs macOS: Core ML predicts nowhere else"


class Engine(Protocol):
    """Runs a model and holds its states."""

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """One run, which continues from the current states: outputs by name."""
        ...

    def reset(self) -> None:
        """Put the states back to what they were at first."""
        ...

    def state_bytes(self) -> dict[str, int]:
        """Bytes of each state, by name."""
        ...


class Interpreted:
    """Runs a MIL program in `harness.mil.interpreter`, starting from fresh states.

    interpreter: one that was prepared for the program before; it holds no state.
    """

    def __init__(self, program: Any, interpreter: Interpreter | None = None) -> None:
        from harness.mil.interpreter import Interpreter

        self.program = program
        self._interpreter = Interpreter(program) if interpreter is None else interpreter
        self.reset()

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Engine.predict`."""
        return self._interpreter.run(inputs, self.states)

    def reset(self) -> None:
        """Set all states to zero."""
        from harness.mil.interpreter import make_states

        self.states = make_states(self.program)

    def state_bytes(self) -> dict[str, int]:
        """See `Engine.state_bytes`."""
        return {name: state.nbytes for name, state in self.states.items()}


class Predicted:
    """Runs a converted model with `MLModel.predict`, on the CPU only, for comparable numbers.

    Raises Unsupported on anything but macOS.
    """

    def __init__(self, model: Any) -> None:
        require_macos()
        import coremltools as ct

        # The model was converted with `skip_model_load`; this compiles and loads it.
        self.model = ct.models.MLModel(
            model.get_spec(), weights_dir=model.weights_dir, compute_units=ct.ComputeUnit.CPU_ONLY
        )
        self.reset()

    def predict(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Engine.predict`."""
        outputs = self.model.predict(dict(inputs), state=self.state)
        return {name: np.asarray(value) for name, value in outputs.items()}

    def reset(self) -> None:
        """Make new states, if the model has any."""
        has_state = len(self.model.get_spec().description.state) > 0
        self.state = self.model.make_state() if has_state else None

    def state_bytes(self) -> dict[str, int]:
        """See `Engine.state_bytes`; computed from the declared shapes, in float16."""
        states = self.model.get_spec().description.state
        shapes = {s.name: s.type.stateType.arrayType.shape for s in states}
        return {name: 2 * math.prod(shape) for name, shape in shapes.items()}


def require_macos() -> None:
    """Raise Unsupported unless Core ML can run here."""
    if sys.platform != "darwin":
        raise Unsupported(NEEDS_MACOS)
