"""Kernels for sliding-window attention with one interface, in the order in which they are tried.

    kernel.refuses(q, k, v) -> why it cannot take these tensors, or ""
    kernel(q, k, v, window, scale) -> out (B, Hq, S, D), differentiable

q (B, Hq, S, D); k, v (B, Hkv, S, D).  window counts keys, including the query's own.  Flash
attention counts the keys to the left and to the right of the query's own: (window - 1, 0).
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from harness.schemes.band.kernel import banded

#: The largest head_dim of flash attention 2.  The router applies it to every kernel, so that it
#: routes the same layers on every machine.
MAX_HEAD_DIM = 256

_HALF = (torch.float16, torch.bfloat16)
_AMPERE = (8, 0)


class WindowKernel(Protocol):
    """Causal attention with a sliding window."""

    name: str

    def refuses(self, q: Tensor, k: Tensor, v: Tensor) -> str:
        """Why the kernel cannot take these tensors; "" if it can."""
        ...

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        """(B, Hq, S, D); the queries are the last Sq of the Sk positions."""
        ...


def sides(window: int) -> tuple[int, int]:
    """A window as flash attention counts it: keys left and right of the query's own."""
    return window - 1, 0


class FlashAttn:
    """The flash-attn package."""

    name = "flash_attn"

    def refuses(self, q: Tensor, k: Tensor, v: Tensor) -> str:
        return _flash_attn()[1] or _not_for_flash(q, k, v)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        attend, _ = _flash_attn()
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        out: Tensor = attend(q, k, v, softmax_scale=scale, causal=True, window_size=sides(window))
        return out.transpose(1, 2)


class TorchFlash:
    """torch's own flash attention 2, which has windows although no public function offers them."""

    name = "torch.fa2"

    def refuses(self, q: Tensor, k: Tensor, v: Tensor) -> str:
        if not torch.backends.cuda.is_flash_attention_available():
            return "torch was built without flash attention"
        return _not_for_flash(q, k, v)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        left, right = sides(window)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        lengths = None, None, q.shape[1], k.shape[1]
        windows = {"window_size_left": left, "window_size_right": right}
        out: Tensor = torch.ops.aten._flash_attention_forward(
            q, k, v, *lengths, 0.0, True, False, scale=scale, **windows
        )[0]
        return out.transpose(1, 2)


class Banded:
    """`banded`, on any device and in any floating-point dtype."""

    name = "banded"

    def refuses(self, q: Tensor, k: Tensor, v: Tensor) -> str:
        del k, v
        return "" if q.is_floating_point() else f"{q.dtype} is not a floating-point dtype"

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        return banded(q, k, v, window, scale)


#: The fastest first.
KERNELS: tuple[WindowKernel, ...] = (FlashAttn(), TorchFlash(), Banded())


@cache
def _flash_attn() -> tuple[Any, str]:
    """The function, or why there is none: a wheel for another torch is found but does not load."""
    if importlib.util.find_spec("flash_attn") is None:
        return None, "flash-attn is not installed"
    try:
        return importlib.import_module("flash_attn").flash_attn_func, ""
    except (ImportError, OSError, AttributeError) as error:
        return None, f"flash-attn does not load: {str(error).partition(chr(10))[0]}"


def _not_for_flash(q: Tensor, k: Tensor, v: Tensor) -> str:
    """Why flash attention 2 cannot take these tensors; "" if it can."""
    if q.dtype not in _HALF:
        return f"{q.dtype} is not half precision"
    head_dim = q.shape[-1]
    if head_dim > MAX_HEAD_DIM or head_dim % 8:
        return f"head_dim {head_dim} is not a multiple of 8 up to {MAX_HEAD_DIM}"
    if not q.shape[-1] == k.shape[-1] == v.shape[-1]:
        return "q, k and v differ in head_dim"
    if q.device.type != "cuda":
        return "needs CUDA"
    if torch.cuda.get_device_capability(q.device) < _AMPERE:
        return "needs compute capability 8.0"
    return ""
