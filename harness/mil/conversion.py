"""Converts PyTorch modules to Core ML models, on any machine: no model is loaded or compiled."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, Literal

import torch
from torch import nn

from harness.export.exportable import quiet

Precision = Literal["float32", "float16"]


def convert(
    module: nn.Module,
    args: tuple[Any, ...],
    precision: Precision = "float32",
    pipeline: Any = None,
    dynamic_shapes: Any = None,
) -> Any:
    """The ML program (an `MLModel`) of a module in eval mode; its mutated buffers become states.

    precision: of the arithmetic; states are always float16, as Core ML has no others.
    pipeline: a `PassPipeline` in place of the default one.  dynamic_shapes: as in `torch.export`.

    The export decomposes no further than the ATen dialect, so that attention arrives as one op.
    The target is iOS 18, the first with that op and with states.  Raises whatever `torch.export`
    and coremltools raise if they cannot convert the module.
    """
    with hushed():
        import coremltools as ct

        program = torch.export.export(module, args, dynamic_shapes=dynamic_shapes, strict=False)
        return ct.convert(
            program.run_decompositions({}),
            convert_to="mlprogram",
            minimum_deployment_target=ct.target.iOS18,
            compute_precision=ct.precision(precision),
            pass_pipeline=pipeline,
            skip_model_load=True,
        )


@contextmanager
def hushed() -> Iterator[None]:
    """Suppress the warnings, logs and progress bars of a conversion, but not its errors."""
    with quiet(), redirect_stderr(io.StringIO()):
        yield


def input_names(model: Any) -> list[str]:
    """Names of a converted model's inputs, in the order of the module's flattened arguments."""
    return [value.name for value in model.get_spec().description.input]
