"""PyTorch modules converted to Core ML models, on any machine: nothing here loads or compiles."""

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
    """An ML program (`MLModel`) of a module in eval mode; its mutated buffers become states.

    precision: of the arithmetic; states are float16 in either, Core ML knows no others.
    pipeline: a `PassPipeline` in place of the default one; dynamic_shapes: as `torch.export`
    takes them.

    Exported without decompositions beyond the ATen dialect, so that attention arrives as one op;
    for iOS 18, the first target with that op and with states.  Raises what `torch.export` and
    coremltools raise for what they cannot convert.
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
    """Hold back warnings, logs and the progress bars of a conversion, errors excepted."""
    with quiet(), redirect_stderr(io.StringIO()):
        yield


def input_names(model: Any) -> list[str]:
    """Inputs of a converted model, in the order of the module's flattened arguments."""
    return [value.name for value in model.get_spec().description.input]
