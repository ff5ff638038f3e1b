"""Routes the sliding layers of transformers' models through a windowed kernel, and nothing else.

    router = install()              # or: with routing() as router: …
    model(...)
    print(router.explain())

The registered "sdpa" function is replaced by one that decides call by call.  A call is routed only
if the windowed kernel computes what the original would have: a sliding layer in self-attention,
longer than its window, with a mask that is, entry by entry, the plain causal band.  Every other
call goes to the original with its arguments unchanged.  The decision is counted, with its reason.

**No mask.**  Without a mask the original ignores the window and shows every earlier key (or every
key, if it is not causal), so such a call is passed on.  A caller who relies on the kernel for the
window, as flash attention's interface does, can ask for it: ``install(unmasked=True)`` routes a
call without a mask if it is causal and its positions are those of one sequence.

**Compiled graphs.**  Whether a mask is a band depends on its data, which a traced graph must not
read.  Inside `torch.compile`, `torch.export` and functional transforms calls are passed on, and
give the same results as without a router.

**Autocast.**  Under autocast, rotary embeddings leave queries and keys in float32 while values are
in half precision, and the original answers in half precision.  Such calls are passed on.

**Switch.**  HARNESS_BAND_ROUTING=0 passes everything on; it is read at each call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from harness.schemes.band.backends import KERNELS, MAX_HEAD_DIM, WindowKernel
from harness.schemes.band.calls import fits, is_captured, is_recast, is_traced
from harness.schemes.band.decisions import Decision, Decisions, Reason
from harness.schemes.band.mask import is_band

SWITCH = "HARNESS_BAND_ROUTING"

#: transformers' interface of attention functions.
AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]

#: Options that tell flash attention where packed sequences begin, so that it needs no mask.
_PACKED = ("cu_seq_lens_q", "cu_seq_lens_k")

_EXTRAS = ("position_bias", "softcap", "cache", "s_aux")


class Router:
    """An attention function for transformers, in front of another.

    original: answers what is not routed.  kernels: tried in order.  unmasked: route causal calls
    without a mask as well (see the module).
    """

    def __init__(
        self,
        original: AttentionFunction,
        kernels: Sequence[WindowKernel] = KERNELS,
        *,
        unmasked: bool = False,
    ) -> None:
        self.original, self.kernels, self.unmasked = original, tuple(kernels), unmasked
        self.decisions = Decisions()

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **more: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention of q (B, Hq, Sq, D), k, v (B, Hkv, Sk, D) -> (out (B, Sq, Hq, D), None)."""
        options = {**more, "dropout": dropout, "scaling": scaling, "is_causal": is_causal}
        # First of all, and without counting: a counter would become part of the traced graph.
        if torch.compiler.is_compiling():
            return self.original(module, query, key, value, attention_mask, **options)
        decision, kernel = self.decide(module, query, key, value, attention_mask, options)
        self.decisions.add(decision)
        window = self.window_of(module, options)
        if kernel is None or window is None:
            return self.original(module, query, key, value, attention_mask, **options)
        scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        out = kernel(query, key, value, window, scale)
        return out.transpose(1, 2).contiguous(), None

    def explain(self) -> str:
        """The decisions so far, for people."""
        return self.decisions.explain()

    def decide(
        self,
        module: nn.Module,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None,
        options: dict[str, Any],
    ) -> tuple[Decision, WindowKernel | None]:
        """What to do with a call, and the kernel that takes it if one does."""
        window = self.window_of(module, options)
        reason = (
            self.of_call(q, k, v, mask, options)
            or self.of_shapes(module, q, k, v, window)
            or self.of_mask(module, q, mask, window, options)
        )
        if reason is not None:
            return Decision(reason), None
        return self.choose(q, k, v)

    def window_of(self, module: nn.Module, options: dict[str, Any]) -> int | None:
        """The window of a layer, from the options or else from the module; None if it has none."""
        window = options.get("sliding_window", getattr(module, "sliding_window", None))
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            return None
        return window

    def of_call(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, options: dict[str, Any]
    ) -> Reason | None:
        """Why a call is passed on whatever its shapes and mask are, or None."""
        if os.environ.get(SWITCH) == "0":
            return Reason.OFF
        if is_traced(q, k, v, mask):
            return Reason.TRACED
        if any(options.get(name) is not None for name in _EXTRAS):
            return Reason.EXTRA
        if options.get("dropout", 0.0):
            return Reason.DROPOUT
        return None

    def of_shapes(
        self, module: nn.Module, q: Tensor, k: Tensor, v: Tensor, window: int | None
    ) -> Reason | None:
        """Why these shapes are not those of a sliding layer's first prefill, or None."""
        if window is None:
            return Reason.FULL
        groups = getattr(module, "num_key_value_groups", 1)
        if k.shape != v.shape or q.shape[0] != k.shape[0] or q.shape[1] != k.shape[1] * groups:
            return Reason.SHAPES
        if self.too_wide(q):
            return Reason.HEAD_DIM
        if q.shape[2] != k.shape[2]:
            return Reason.DECODE if q.shape[2] == 1 else Reason.CACHED
        return Reason.SHORT if q.shape[2] <= window else None

    def too_wide(self, q: Tensor) -> bool:
        """True for a head_dim that is too large for the kernels."""
        return q.shape[-1] > MAX_HEAD_DIM

    def of_mask(
        self,
        module: nn.Module,
        q: Tensor,
        mask: Tensor | None,
        window: int | None,
        options: dict[str, Any],
    ) -> Reason | None:
        """Why the mask is not the band of the window, or None."""
        if mask is None:
            if not self.is_causal(module, options):
                return Reason.BIDIRECTIONAL
            return self.of_positions(options) if self.unmasked else Reason.NO_MASK
        if window is None or not fits(mask, q):
            return Reason.NOT_BAND
        if is_captured(mask, window):
            return Reason.TRACED
        return None if self.is_band(mask, window) else Reason.NOT_BAND

    def of_positions(self, options: dict[str, Any]) -> Reason | None:
        """Why a call without a mask is not one sequence, or None; only options show packing."""
        if any(options.get(name) is not None for name in _PACKED):
            return Reason.NOT_BAND
        positions = options.get("position_ids")
        if positions is None:
            return None
        if positions.is_cuda and torch.cuda.is_current_stream_capturing():
            return Reason.TRACED
        return Reason.NOT_BAND if bool((positions.diff(dim=-1) != 1).any()) else None

    def is_causal(self, module: nn.Module, options: dict[str, Any]) -> bool:
        """Causality as the original finds it: the argument first, then the module."""
        said = options.get("is_causal")
        return bool(getattr(module, "is_causal", True) if said is None else said)

    def is_band(self, mask: Tensor, window: int) -> bool:
        """The exact test, with its verdict kept on the tensor."""
        return is_band(mask, window)

    def choose(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[Decision, WindowKernel | None]:
        """The first kernel that takes these tensors."""
        if q.dtype != k.dtype or q.dtype != v.dtype:
            return Decision(Reason.NO_KERNEL, "q, k and v of different dtypes"), None
        if is_recast(q):
            return Decision(Reason.NO_KERNEL, f"autocast from {q.dtype}"), None
        refusals = []
        for kernel in self.kernels:
            why = kernel.refuses(q, k, v)
            if not why:
                return Decision(Reason.ROUTED, kernel.name), kernel
            refusals.append(f"{kernel.name}: {why}")
        return Decision(Reason.NO_KERNEL, "; ".join(refusals)), None


def install(
    name: str = "sdpa", kernels: Sequence[WindowKernel] = KERNELS, *, unmasked: bool = False
) -> Router:
    """Put a router in front of transformers' attention function `name`, until `uninstall`.

    Returns the router.  Raises RuntimeError if there is one already, and ValueError for an unknown
    function or a value of HARNESS_BAND_ROUTING other than 0 and 1.
    """
    functions = _functions()
    if os.environ.get(SWITCH, "1") not in {"0", "1"}:
        raise ValueError(f"{SWITCH} must be 0 or 1, got {os.environ[SWITCH]!r}")
    if name not in functions:
        raise ValueError(f"name must be one of {', '.join(sorted(functions))}, got {name!r}")
    if isinstance(functions[name], Router):
        raise RuntimeError(f"{name} is routed already; uninstall() first")
    functions[name] = router = Router(functions[name], kernels, unmasked=unmasked)
    return router


def _functions() -> MutableMapping[str, AttentionFunction]:
    """transformers' attention functions by name."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    functions: MutableMapping[str, AttentionFunction] = ALL_ATTENTION_FUNCTIONS
    return functions


def uninstall(name: str = "sdpa") -> None:
    """Put the original back; does nothing if there is no router."""
    functions = _functions()
    router = functions.get(name)
    if isinstance(router, Router):
        del functions[name]  # uncovers a global entry; a local one is put back below
        if functions.get(name) is not router.original:
            functions[name] = router.original


@contextmanager
def routing(
    name: str = "sdpa", kernels: Sequence[WindowKernel] = KERNELS, *, unmasked: bool = False
) -> Iterator[Router]:
    """`install` for the duration of a with block."""
    router = install(name, kernels, unmasked=unmasked)
    try:
        yield router
    finally:
        uninstall(name)
