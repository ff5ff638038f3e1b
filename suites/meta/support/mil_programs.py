"""MIL programs of one block, and how they are run."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import coremltools as ct
import torch
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types
from mil_blocks import Block, block_inputs
from torch import Tensor

from harness.mil.conversion import Precision, convert
from harness.mil.interpreter import run
from harness.reference import tolerance

mb, IOS18 = mil.Builder, ct.target.iOS18


@lru_cache
def block_model(precision: Precision = "float32") -> Any:
    """The converted block; made once for each precision."""
    return convert(Block(), tuple(block_inputs().values()), precision)


def answer(program: Any, inputs: dict[str, Any]) -> Tensor:
    """The one output of a run."""
    (out,) = run(program, inputs).values()
    return torch.from_numpy(out)


def bound_of(own: Tensor, exact: Tensor) -> Tensor:
    """The harness's bound for one layer, from a torch run in the program's precision."""
    n_keys = torch.arange(1, own.shape[1] + 1)
    return tolerance.row_bound(own, exact, n_keys, 32, 1)


def build(shape: tuple[Any, ...], dtype: Any = types.fp32) -> Callable[..., Any]:
    """A decorator that makes a program of one input from a function."""
    return mb.program(input_specs=[mb.TensorSpec(shape, dtype)], opset_version=IOS18)
