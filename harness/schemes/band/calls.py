"""What the tensors of an attention call show before any value of the mask is read."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.schemes.band.mask import is_known


def is_traced(*tensors: Tensor | None) -> bool:
    """True if values must not be read: tracing, functional transforms, tensor subclasses."""
    if torch._C._get_tracing_state() is not None or torch._C._are_functorch_transforms_active():
        return True
    key = torch._C._TorchDispatchModeKey  # make_fx passes plain tensors
    if any(torch._C._get_dispatch_mode(k) is not None for k in (key.PROXY, key.FAKE)):
        return True
    plain = (Tensor, nn.Parameter)
    return any(t is not None and (type(t) not in plain or t.is_meta) for t in tensors)


def is_recast(q: Tensor) -> bool:
    """True if autocast makes the original compute, and answer, in another dtype than that of q."""
    kind = q.device.type
    if q.dtype == torch.float64 or not torch.is_autocast_enabled(kind):
        return False
    return q.dtype != torch.get_autocast_dtype(kind)


def fits(mask: Tensor, q: Tensor) -> bool:
    """True for a mask over exactly these queries' positions, in a form that the original takes.

    False for a mask that requires a gradient: it is a learned bias.
    """
    return (
        mask.dim() == 4
        and mask.shape[0] in (1, q.shape[0])
        and mask.shape[1] in (1, q.shape[1])
        and mask.shape[2] == mask.shape[3] == q.shape[2]
        and mask.dtype in (torch.bool, q.dtype)
        and mask.device == q.device
        and not mask.requires_grad
    )


def is_captured(mask: Tensor, window: int) -> bool:
    """True if the mask would have to be read while a CUDA graph is recorded."""
    if not mask.is_cuda or not torch.cuda.is_current_stream_capturing():
        return False
    return not is_known(mask, window)
