"""The rule of thumb: an estimate from the number of parameters alone (whichllm #124).

It takes so many bytes per billion parameters and 1024 positions.  For the families whose windows
the mainline runtimes honour, it takes an effective context, r * ctx + (1 - r) * min(ctx, window),
where r is the share of full layers.  It knows no layers; `harness kv` shows how far off it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from harness.estimate.geometry import Geometry
from harness.estimate.profiles.base import Honours, Profile, Request, RequestError, UnsupportedCache

_BYTES = 3.5 * 1024 * 1024  # per billion parameters and 1024 positions
_ACTIVE = 4.0  # a mixture of experts counts as a dense model of this many times its active size

_MOST = 1e6  # billions of parameters


def effective_context(context: int, window: int | None, ratio: float | None) -> float:
    """r * ctx + (1 - r) * min(ctx, window); the context itself if no window is honoured.

    ratio: r, the share of full layers, clamped to 0…1.
    """
    if window is None or ratio is None:
        return float(context)
    ratio = min(max(ratio, 0.0), 1.0)
    return ratio * context + (1.0 - ratio) * min(context, window)


def heuristic_bytes(
    billions: float,
    context: int,
    window: int | None = None,
    ratio: float | None = None,
    active: float | None = None,
) -> int:
    """Bytes of the cache, in fp16, of a model with so many billions of parameters.

    window, ratio: see `effective_context`.
    active: billions of parameters per token, if the model is a mixture of experts.
    """
    size = billions if active is None else active * _ACTIVE
    return max(int(size * (effective_context(context, window, ratio) / 1024) * _BYTES), 0)


@dataclass(frozen=True)
class Heuristic(Profile):
    """The rule of thumb.

    billions: billions of parameters; None if not known.  active: per token, for a mixture of
    experts.  Raises RequestError unless they are positive and at most 1e6.
    """

    billions: float | None = None
    active: float | None = None

    name: ClassVar[str] = "heuristic"
    evidence: ClassVar[str] = "rule of thumb"
    stores: ClassVar[frozenset[str]] = frozenset({"f16", "bf16"})
    honoured: ClassVar[frozenset[str]] = frozenset({"gemma2", "gemma3", "gpt-oss", "cohere2"})

    def __post_init__(self) -> None:
        for field, value in (("billions", self.billions), ("active", self.active)):
            if value is not None and not 0 < value <= _MOST:  # neither holds for NaN
                raise RequestError(f"{field} must be a number in 0…{_MOST:g}, got {value}")

    def honours(self, geometry: Geometry) -> Honours:
        """Yes for the families on its allowlist, no for all others, Mistral included."""
        if not geometry.bounded:
            return Honours.NOTHING
        return Honours.YES if geometry.family in self.honoured else Honours.NO

    def layer_bytes(self, geometry: Geometry, request: Request) -> list[int]:  # noqa: ARG002
        """Raises UnsupportedCache: the rule knows no layers."""
        raise UnsupportedCache("the rule of thumb knows no layers, only the number of parameters")

    def total(self, geometry: Geometry, request: Request) -> int:
        """Bytes in fp16.  Raises UnsupportedCache if the number of parameters is not known."""
        self.check_types(request)
        if self.billions is None:
            raise UnsupportedCache("needs the number of parameters, in billions")
        window, ratio = None, None
        if self.honours(geometry) is Honours.YES:
            window = next(layer.law.window for layer in geometry.layers if layer.law.bounded)
            # whichllm's share is 1 / period.  It is not always exact: Gemma 3 27B has a period
            # of 6, but 10 full layers in 62.
            kinds = [layer.kind for layer in geometry.layers]
            ratio = 1 / (kinds.index("full") + 1) if "full" in kinds else 0.0
        one = heuristic_bytes(self.billions, request.context, window, ratio, self.active)
        return request.sequences * one
