"""Run models entirely in float64, even the parts that they compute in float32."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class _Widened(TorchFunctionMode):
    """Turns every float32 that is requested by name into float64."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is Tensor.float:
            return args[0].double()
        wide = (torch.float64 if x is torch.float32 else x for x in args)
        if not kwargs:
            return func(*wide)
        named = {k: torch.float64 if v is torch.float32 else v for k, v in kwargs.items()}
        return func(*wide, **named)


def in_full_precision(dtype: torch.dtype) -> AbstractContextManager[object]:
    """A context in which a float64 model's norms, softmaxes and rotary angles are float64, too.

    Models cast those to float32 whatever their own dtype, for the sake of half precision.  A
    float64 model is then as inexact as a float32 one, and cannot be its reference.  For other
    dtypes the context does nothing.
    """
    return _Widened() if dtype == torch.float64 else nullcontext()
