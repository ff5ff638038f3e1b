"""The blunt mistakes: bodies that raise, answer nothing of use, or remember nothing.

A check that one of them passes proves nothing about a body of that kind, unless there is a reason:
`REASONS` holds them, and the table of `harness kills` shows every cell.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.contract import CacheShape, Decoder, LayerCache, Subject, Unsupported
from harness.defects.base import DecoderSubjectOfTrimmed, DenseAttention, TrimmedSubject
from harness.law import SCHEMES, Layer
from harness.reference.cache_decoder import CacheDecoder

#: What each mistake is, by name.
MISTAKES = {
    "raises": "raises on every call",
    "zeros": "answers zeros",
    "nan": "answers NaN",
    "echo": "returns what it was given",
    "forgets": "sees nothing but the call's own positions",
    "claims nothing": "raises Unsupported on every call",
}


def _refuse(mistake: str) -> None:
    if mistake == "raises":
        raise RuntimeError("raises on every call")
    if mistake == "claims nothing":
        raise Unsupported("claims no case")


class BluntAttention(DenseAttention):
    """An operation with the mistake `mistake`; it looks at no input, so that it refuses none."""

    mistake = ""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        _refuse(self.mistake)
        if self.mistake == "zeros":
            return q * 0
        if self.mistake == "nan":
            return q * torch.nan
        if self.mistake == "echo":
            return q * 1
        t = q.shape[2]
        return super().attend(q, k[:, :, -t:], v[:, :, -t:], layer)


class BluntCache:
    """One layer's cache with the mistake `mistake`.  It holds nothing."""

    def __init__(self, mistake: str, layer: Layer) -> None:
        self.mistake, self.layer, self.length = mistake, layer, 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        _refuse(self.mistake)
        t = k.shape[2]
        at = torch.arange(self.length, self.length + t)
        self.length += t
        if self.mistake == "echo":
            return k, v, torch.ones(t, t, dtype=torch.bool)
        by = {"zeros": 0.0, "nan": torch.nan}.get(self.mistake, 1.0)
        return k * by, v * by, self.layer.between(at, at)

    def reset(self) -> None:
        _refuse(self.mistake)
        self.length = 0

    def rewind(self, length: int) -> None:
        _refuse(self.mistake)
        self.length = length

    def nbytes(self) -> int:
        return 0


class BluntCacheSubject:
    """`CacheSubject` of `BluntCache`."""

    name, schemes, mistake = "blunt.cache", SCHEMES, ""

    def new_cache(self, layer: Layer, shape: CacheShape) -> LayerCache:
        del shape
        return BluntCache(self.mistake, layer)


class BluntDecoder(CacheDecoder):
    """A decoder with the mistake `mistake`; its dense run is right."""

    def __init__(self, mistake: str, case: Case) -> None:
        super().__init__(TrimmedSubject(), case)
        self.mistake = mistake

    def feed(self, tokens: Tensor) -> Tensor:
        _refuse(self.mistake)
        vocab = self.case.vocab
        if self.mistake == "echo":
            logits = torch.nn.functional.one_hot(tokens, vocab).to(self.weights.head.dtype)
        elif self.mistake == "forgets":
            at = torch.arange(self.length, self.length + tokens.shape[1])
            logits = self.dense(tokens, positions=at)
        else:
            by = 0.0 if self.mistake == "zeros" else torch.nan
            logits = torch.full((*tokens.shape, vocab), by, dtype=self.weights.head.dtype)
        self.length += tokens.shape[1]
        return logits

    def reset(self) -> None:
        _refuse(self.mistake)
        self.length = 0

    def rewind(self, length: int) -> None:
        _refuse(self.mistake)
        self.length = length

    def cache_bytes(self) -> list[int]:
        return [0] * self.model.n_layers


class BluntDecoderSubject(DecoderSubjectOfTrimmed):
    """`DecoderSubject` of `BluntDecoder`."""

    mistake = ""

    def open(self, case: Case) -> Decoder:
        return BluntDecoder(self.mistake, case)


@dataclass(frozen=True)
class Blunt:
    """One body with one mistake."""

    body: str
    mistake: str
    subject: type[Subject]


def _blunt(body: str, base: type[Subject], mistake: str) -> Blunt:
    name = f"blunt.{body}.{mistake.replace(' ', '-')}"
    return Blunt(body, mistake, type(base.__name__, (base,), {"name": name, "mistake": mistake}))


#: A base of blunt subjects for each body.
BODIES: dict[str, type[Subject]] = {
    "attention": BluntAttention,
    "cache": BluntCacheSubject,
    "decoder": BluntDecoderSubject,
}

BLUNTS: tuple[Blunt, ...] = tuple(
    _blunt(body, base, mistake) for body, base in BODIES.items() for mistake in MISTAKES
)
