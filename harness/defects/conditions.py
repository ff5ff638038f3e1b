"""Mistakes that show under one condition only: a dtype, a range of positions, a kind of step.

A matrix that is run in few dtypes, to few positions, or with few kinds of steps lets them pass.
The table of `harness kills` shows which conditions the plan meets for each body.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks import run_check
from harness.contract import CacheShape, Decoder, LayerCache, Subject
from harness.defects.base import DenseAttention, Trimmed, TrimmedSubject
from harness.law import SCHEMES, Layer
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Status
from harness.run import plan

DTYPES = ("float32", "float16", "bfloat16")
#: Ranges of positions [from, to): within a window of 8, past it, past 64, past 256.
RANGES = ((0, 8), (8, 64), (64, 257), (257, 10**9))
STEPS = ("prefill", "chunk", "decode")

#: Of one model all bodies have every kind of case; that with a window of 64 has longer ones.
MODELS = ("mistral", "mistral-w64")

#: By how much a wrong row is off: far more than any bound.
_OFF = 1.5


@dataclass(frozen=True)
class Condition:
    """When a body is wrong: in steps of this kind whose last position is in the range."""

    dtype: str
    start: int
    end: int
    step: str

    def __str__(self) -> str:
        return f"{self.step} in {self.dtype}, positions {self.start} to {self.end - 1}"

    def holds(self, dtype: torch.dtype, before: int, t: int) -> bool:
        """True for a step of t positions after `before`."""
        step = "prefill" if not before else "decode" if t == 1 else "chunk"
        at = before + t - 1
        right_dtype = dtype == getattr(torch, self.dtype)
        return right_dtype and self.start <= at < self.end and step == self.step


class _Attention(DenseAttention):
    name = "conditional.attention"
    condition: Condition

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer)
        t = q.shape[2]
        return out * (_OFF if self.condition.holds(q.dtype, k.shape[2] - t, t) else 1)


class _Cache(Trimmed):
    def __init__(self, condition: Condition, layer: Layer, shape: CacheShape) -> None:
        self.condition = condition
        super().__init__(layer, shape)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        wrong = self.condition.holds(k.dtype, self.length, k.shape[2])
        keys, values, mask = super().update(k, v)
        return keys, values * (_OFF if wrong else 1), mask


class _CacheSubject:
    name, schemes = "conditional.cache", SCHEMES
    condition: Condition

    def new_cache(self, layer: Layer, shape: CacheShape) -> LayerCache:
        return _Cache(self.condition, layer, shape)


class _Decoder(CacheDecoder):
    def __init__(self, condition: Condition, case: Case) -> None:
        super().__init__(TrimmedSubject(), case)
        self.condition = condition

    def feed(self, tokens: Tensor) -> Tensor:
        dtype = self.weights.head.dtype
        wrong = self.condition.holds(dtype, self.length, tokens.shape[1])
        return super().feed(tokens) * (_OFF if wrong else 1)


class _DecoderSubject:
    name, schemes = "conditional.decoder", SCHEMES
    condition: Condition

    def open(self, case: Case) -> Decoder:
        return _Decoder(self.condition, case)


BODIES: dict[str, type[Subject]] = {
    "attention": _Attention,
    "cache": _CacheSubject,
    "decoder": _DecoderSubject,
}

CONDITIONS: tuple[Condition, ...] = tuple(
    Condition(dtype, *where, step) for dtype, where, step in product(DTYPES, RANGES, STEPS)
)

_FLOAT16 = (
    "in float16 the logits of a decoder do not tell a window from its neighbours, nor positions "
    "below 1024: its caches are compared layer by layer"
)
_ONE_PROMPT = "a run in bfloat16 must go past position 512 to show its positions: after one prompt"


def reason(body: str, condition: Condition) -> str:
    """Why the plan does not meet a condition; "" where it must."""
    if body == "decoder" and condition.dtype == "float16":
        return _FLOAT16
    if body != "decoder" or condition.dtype != "bfloat16" or condition.step != "prefill":
        return ""
    return _ONE_PROMPT if 0 < condition.start < RANGES[-1][0] else ""


def caught(body: str, condition: Condition) -> bool:
    """True if some values case of the plan breaks on a body that is wrong under the condition."""
    subject = type("Conditional", (BODIES[body],), {"condition": condition})
    for check, case in plan.items(subject, models=MODELS):
        if check != "values" or case.dtype != condition.dtype:
            continue
        if run_check(subject, check, case).status is Status.FAIL:
            return True
    return False


def table() -> Iterator[tuple[str, Condition, bool]]:
    """Each body and condition, and whether the plan catches it."""
    for body in BODIES:
        for condition in CONDITIONS:
            yield body, condition, caught(body, condition)
