"""Defects of routers: those that reviews found in merged routers, and similar ones.

Each is `Router` with one small patch.  The scenarios of `harness.defects.router_calls` must catch
every one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.reference import oracle
from harness.schemes.band.backends import Banded, WindowKernel, sides
from harness.schemes.band.decisions import Decision, Reason
from harness.schemes.band.mask import read_band
from harness.schemes.band.routing import AttentionFunction, Router

_ATTRIBUTE = "_defective_verdict"


class VerdictById(Router):
    """Keeps verdicts by id(mask): a mask at the address of a freed one inherits its verdict."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.verdicts: dict[int, bool] = {}

    def is_band(self, mask: Tensor, window: int) -> bool:
        if id(mask) not in self.verdicts:
            self.verdicts[id(mask)] = read_band(mask, window)
        return self.verdicts[id(mask)]


class StaleAfterEdit(Router):
    """The verdict on the tensor is keyed only by the window: an edit in place goes unnoticed."""

    def is_band(self, mask: Tensor, window: int) -> bool:
        verdicts: dict[int, bool] = mask.__dict__.setdefault(_ATTRIBUTE, {})
        if window not in verdicts:
            verdicts[window] = read_band(mask, window)
        return verdicts[window]


class OtherWindow(Router):
    """The verdict on the tensor is keyed only by its version: another window gets it too."""

    def is_band(self, mask: Tensor, window: int) -> bool:
        verdicts: dict[int, bool] = mask.__dict__.setdefault(_ATTRIBUTE, {})
        if mask._version not in verdicts:
            verdicts[mask._version] = read_band(mask, window)
        return verdicts[mask._version]


class NoneIsCausal(Router):
    """A call without a mask is treated as causal, whatever is_causal says."""

    def is_causal(self, module: nn.Module, options: dict[str, Any]) -> bool:
        del module, options
        return True


class FirstRowOfTheBatch(Router):
    """Only the first batch row is read: padding in the others is treated as the band."""

    def is_band(self, mask: Tensor, window: int) -> bool:
        return read_band(mask[:1], window)


class PaddingAsBand(Router):
    """Columns that no query sees are treated as padding that does not matter."""

    def is_band(self, mask: Tensor, window: int) -> bool:
        if mask.dtype != torch.bool:
            mask = mask > torch.finfo(mask.dtype).min
        unseen = ~mask.any(dim=2, keepdim=True)
        size = mask.shape[-1]
        full = torch.ones(size, size, dtype=torch.bool).tril_().triu_(1 - window)
        return read_band(mask | (unseen & full), window)


class Probes(Router):
    """At most ten rows are read, not all."""

    def is_band(self, mask: Tensor, window: int) -> bool:
        size = mask.shape[-1]
        near = (0, 1, window - 1, window, window + 1, 2 * window, size // 2, size - 1)
        rows = sorted({r for r in (*near, size - window, size - window - 1) if 0 <= r < size})
        probed = torch.ones(size, size, dtype=torch.bool).tril_().triu_(1 - window)
        probed = probed.expand(mask.shape[0], 1, size, size).clone()
        seen = mask if mask.dtype == torch.bool else mask > -1e4
        probed[:, :, rows] = seen[:, :, rows]
        return read_band(probed, window)


class Flash:
    """Attention with a window as flash attention takes it: keys to the left of the query's own."""

    name = "flash"

    def refuses(self, q: Tensor, k: Tensor, v: Tensor) -> str:
        del q, k, v
        return ""

    def left(self, window: int) -> int:
        """Keys left of the query's own."""
        return sides(window)[0]

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        size = q.shape[2]
        mask = torch.ones(size, size, dtype=torch.bool).tril_().triu_(-self.left(window))
        return oracle.attention(q * scale * q.shape[-1] ** 0.5, k, v, mask)


class FlashBothSides(Flash):
    """Takes the window as it is, as (W, W)."""

    def left(self, window: int) -> int:
        return window


class HalfKernel(Banded):
    """Computes in bfloat16, and returns the dtype of its inputs."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        low = torch.bfloat16
        return super().__call__(q.to(low), k.to(low), v.to(low), window, scale).to(q.dtype)


class UnscaledKernel(Banded):
    """Divides by sqrt(D), whatever scale it is given."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        del scale
        return super().__call__(q, k, v, window, q.shape[-1] ** -0.5)


class _WithKernel(Router):
    """A router with one kernel of its own."""

    kernel: WindowKernel

    def __init__(
        self,
        original: AttentionFunction,
        kernels: Sequence[WindowKernel] = (),
        *,
        unmasked: bool = False,
    ) -> None:
        super().__init__(original, kernels or (self.kernel,), unmasked=unmasked)


class WindowInSides(_WithKernel):
    """Passes the window to flash attention as (W-1, 0): correct."""

    kernel = Flash()


class BothSides(_WithKernel):
    """Passes the window to flash attention as (W, W): one key too many."""

    kernel = FlashBothSides()


class HalfInside(_WithKernel):
    """Routes float32 to a half-precision kernel."""

    kernel = HalfKernel()


class ScaleIgnored(_WithKernel):
    """The layer's own scale is not passed on."""

    kernel = UnscaledKernel()


class WideHeads(Router):
    """A head_dim that is too large for the kernels is routed."""

    def too_wide(self, q: Tensor) -> bool:
        del q
        return False


class DecodeAsPrefill(Router):
    """A step over a cache is routed as if its queries were the first positions."""

    def of_shapes(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, window: int | None
    ) -> Reason | None:
        found = super().of_shapes(module, q, k, v, window)
        return None if found in (Reason.DECODE, Reason.CACHED) else found

    def of_mask(
        self,
        module: nn.Module,
        q: Tensor,
        mask: Tensor | None,
        window: int | None,
        options: dict[str, Any],
    ) -> Reason | None:
        if mask is not None and mask.shape[-1] != mask.shape[-2]:
            return None
        return super().of_mask(module, q, mask, window, options)

    def choose(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Decision, WindowKernel | None]:
        decision, kernel = super().choose(q, k, v)
        return decision, _FirstPositions() if q.shape[2] != k.shape[2] else kernel


class _FirstPositions(Banded):
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float) -> Tensor:
        n = q.shape[2]
        return super().__call__(q, k[:, :, :n], v[:, :, :n], window, scale)


#: Every defective router, and the scenarios that must catch it.
ROUTERS: dict[type[Router], set[str]] = {
    VerdictById: {"address used again", "edited", "another window"},
    StaleAfterEdit: {"edited"},
    OtherWindow: {"another window"},
    NoneIsCausal: {"unmasked", "unmasked on request"},
    FirstRowOfTheBatch: {"padding", "single entries"},
    PaddingAsBand: {"padding"},
    Probes: {"single entries"},
    BothSides: {"bands", "lengths"},
    HalfInside: {"bands", "dtypes"},
    ScaleIgnored: {"scale"},
    WideHeads: {"layers"},
    DecodeAsPrefill: {"cached"},
}

#: Routers without a defect.
SOUND: tuple[type[Router], ...] = (Router, WindowInSides)
