"""The law of windowed attention: which key positions a query may see.

Everything else in the harness (masks, slots, bytes, influence through several layers)
follows from `Layer`.  Pure: nothing here knows a model, a cache or a subject.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch is imported where a mask is made: estimates need the law, not tensors
    from torch import Tensor


#: What a subject may claim: how the layers of a model forget.
SCHEMES: frozenset[str] = frozenset({"full", "uniform", "interleaved", "sink", "chunked"})


def check_int(field: str, value: object, minimum: int) -> int:
    """`value`, if it is an int.  Raises ValueError naming `field` for a bool or below `minimum`."""
    # bool is an int in Python: `sliding_window: true` in a config must not become a window of 1.
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"{field} must be an integer >= {minimum}, got {value!r}")
    return value


@dataclass(frozen=True, slots=True)
class Layer:
    """Who sees whom in one attention layer.

    The query at position q sees the key at k iff ``k <= q`` and (``window is None`` or
    ``q - k < window`` or ``k < sink``) and (``chunk is None`` or ``q // chunk == k // chunk``).

    window: keys a query sees, **its own included**; None for full causal attention.
    sink: first positions that stay visible for ever (StreamingLLM, arXiv:2309.17453).
    chunk: attention stays inside aligned blocks of this length (Llama 4).

    Raises ValueError naming the field for window < 1, sink < 0, chunk < 1, a bool, or a sink
    without a window.
    """

    window: int | None = None
    sink: int = 0
    chunk: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            check_int("window", self.window, 1)
        if self.chunk is not None:
            check_int("chunk", self.chunk, 1)
        check_int("sink", self.sink, 0)
        if self.sink and self.window is None:
            raise ValueError(f"sink={self.sink} needs a window: without one every key is visible")

    @property
    def bounded(self) -> bool:
        """True if a query sees a bounded number of keys, however long the context."""
        return self.window is not None or self.chunk is not None

    def sees(self, q: int, k: int) -> bool:
        """True iff the query at position q sees the key at position k."""
        in_window = self.window is None or q - k < self.window or k < self.sink
        in_chunk = self.chunk is None or q // self.chunk == k // self.chunk
        return k <= q and in_window and in_chunk

    def visible(self, q: int) -> frozenset[int]:
        """The key positions that the query at position q sees."""
        return frozenset(k for k in range(q + 1) if self.sees(q, k))

    def mask(self, start: int, n_queries: int, n_keys: int) -> Tensor:
        """Bool (n_queries, n_keys), True = visible; queries at start…, keys at 0…"""
        import torch

        return self.between(torch.arange(start, start + n_queries), torch.arange(n_keys))

    def between(self, q: Tensor, k: Tensor) -> Tensor:
        """Bool (len(q), len(k)) for any two vectors of positions.

        A negative key position means "never written" and is visible to nobody.
        """
        import torch

        q, k = q[:, None], k[None, :]
        allowed = (k <= q) & (k >= 0)
        if self.window is not None:
            allowed &= (q - k < self.window) | (k < self.sink)
        if self.chunk is not None:
            allowed &= torch.div(q, self.chunk, rounding_mode="floor") == torch.div(
                k, self.chunk, rounding_mode="floor"
            )
        return allowed

    def slots(self, context: int, chunk: int = 1) -> int:
        """Keys that must be stored to answer a step of `chunk` queries at `context` positions.

        The oldest query of the step still needs its whole window, so a step of c queries spans
        window - 1 + c keys, without the sink's.
        """
        if self.window is not None:
            need = self.sink + self.window - 1 + chunk
        elif self.chunk is not None:
            need = self.chunk - 1 + chunk
        else:
            need = context
        return min(context, need)

    def neighbours(self) -> Iterator[Layer]:
        """The nearest wrong laws: window ± 1, sink ± 1, chunk ± 1."""
        if self.window is not None:
            for window in (self.window - 1, self.window + 1):
                if window >= 1:
                    yield replace(self, window=window)
            for sink in (self.sink - 1, self.sink + 1):
                if sink >= 0 and self.sink:
                    yield replace(self, sink=sink)
        if self.chunk is not None:
            for chunk in (self.chunk - 1, self.chunk + 1):
                if chunk >= 1:
                    yield replace(self, chunk=chunk)

    def __str__(self) -> str:
        parts = []
        if self.window is not None:
            parts.append(f"window={self.window}")
        if self.sink:
            parts.append(f"sink={self.sink}")
        if self.chunk is not None:
            parts.append(f"chunk={self.chunk}")
        return f"Layer({', '.join(parts)})"


def influence(masks: Sequence[Tensor], kv_sources: Sequence[int] | None = None) -> Tensor:
    """Which input positions can reach which output positions through a stack of layers.

    masks: one bool (n, n) per layer.  kv_sources[i]: the layer whose keys and values layer i
    reads (itself unless it shares another's cache); None: each layer reads its own.
    Returns bool (n, n): row q, column k is True iff token k can change the output at q.  It
    is the boolean product of the layers' masks, with the residual stream (the diagonal) always
    open.
    """
    if not masks:
        raise ValueError("masks must hold at least one layer's mask, got none")
    import torch

    n = masks[0].shape[0]
    sources = list(range(len(masks))) if kv_sources is None else list(kv_sources)
    entering = [torch.eye(n, dtype=torch.bool)]  # what has reached the input of layer i
    for i, mask in enumerate(masks):
        # Counts of paths stay below 2**53 for any n here, so float64 products are exact zeros.
        reached = mask.double() @ entering[sources[i]].double() > 0
        entering.append(entering[-1] | reached)
    return entering[-1]
