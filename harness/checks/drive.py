"""Drives a subject through a schedule, for decoders and for single attention operations."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from harness.cases.case import Case, stable_seed
from harness.cases.schedules import Copy, Feed, Reset, Rewind, Schedule
from harness.checks.common import device_of
from harness.contract import (
    AttentionSubject,
    CacheShape,
    CacheSubject,
    ContractError,
    Decoder,
    DecoderSubject,
    LayerCache,
    Subject,
    Unsupported,
    optional,
)
from harness.law import Layer
from harness.reference.cache_decoder import CacheDecoder, checked_update
from harness.reference.inputs import Inputs
from harness.reference.oracle import attention


@dataclass
class Run:
    """What a decoder answered: the tokens held at the end, and the logits of their positions."""

    tokens: Tensor  # (B, n)
    logits: Tensor  # (B, n, V)


class RewindRefusedError(Exception):
    """The subject raised on a rewind.  It may; the run ends there."""


def open_decoder(subject: Subject, case: Case) -> Decoder:
    """A fresh decoder for the case; a cache is run inside the harness's small decoder.

    Raises Unsupported if the subject does not claim the case's scheme, and ContractError for a
    subject without a decoder.
    """
    claim(subject, case)
    if isinstance(subject, DecoderSubject):
        return subject.open(case)
    if isinstance(subject, CacheSubject):
        return CacheDecoder(subject, case, device_of(subject))
    raise ContractError(f"{subject.name} is an attention operation: it has no decoder")


def claim(subject: Subject, case: Case) -> None:
    """Raise Unsupported unless the subject claims the case's scheme."""
    if case.scheme not in subject.schemes:
        raise Unsupported(f"{subject.name} claims {sorted(subject.schemes)}, not {case.scheme}")


def tokens_for(case: Case) -> Tensor:
    """Random tokens (B, total fed): the start of one stream per model and batch row.

    Schedules of one model feed the same tokens in different steps, and so share a reference.
    """
    total = sum(step.n for step in case.schedule.steps if isinstance(step, Feed))
    rows = []
    for row in range(case.batch):
        generator = torch.Generator().manual_seed(stable_seed(f"{case.model.name} row {row}"))
        rows.append(torch.randint(case.vocab, (total,), generator=generator))
    return torch.stack(rows)


def run_decoder(decoder: Decoder, tokens: Tensor, schedule: Schedule) -> Run:
    """Feed `tokens` (B, total) as the steps of the schedule say.

    After a reset or a rewind new tokens are fed, so that a stale key shows.  Raises
    RewindRefusedError if the decoder refuses a rewind, and Unsupported if it has no rewind or
    cannot be copied.
    """
    held: list[Tensor] = []
    rows: list[Tensor] = []
    used = 0
    for step in schedule.steps:
        match step:
            case Feed(n):
                new = tokens[:, used : used + n]
                used += n
                logits = _checked_logits(decoder.feed(new), new)
                held += new.unbind(1)
                rows += logits.unbind(1)
            case Reset():
                decoder.reset()
                held, rows = [], []
            case Rewind(length):
                _rewind(decoder, length)
                del held[length:], rows[length:]
            case Copy():
                decoder = _copied(decoder, tokens[:, :1])
    return Run(torch.stack(held, 1), torch.stack(rows, 1))


def _rewind(decoder: Decoder, length: int) -> None:
    # The harness's body always has the method; the caches under test may not.
    parts = decoder.caches.values() if isinstance(decoder, CacheDecoder) else (decoder,)
    if not all(optional(part, "rewind") for part in parts):
        raise Unsupported("has no rewind")
    try:
        decoder.rewind(length)  # type: ignore[attr-defined]  # optional member of the contract
    except Exception as error:
        raise RewindRefusedError(f"{type(error).__name__}: {error}") from error


def _copied(decoder: Decoder, other: Tensor) -> Decoder:
    """A deep copy, after which the original is reset and fed other tokens.  Raises Unsupported."""
    try:
        copy = deepcopy(decoder)
    except Exception as error:
        raise Unsupported(f"cannot be copied: {type(error).__name__}: {error}") from error
    decoder.reset()
    decoder.feed(other)
    return copy


def _checked_logits(logits: Tensor, tokens: Tensor) -> Tensor:
    want = tuple(tokens.shape)
    if not isinstance(logits, Tensor) or logits.dim() != 3 or tuple(logits.shape[:2]) != want:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ContractError(f"feed() of {want} tokens must return logits {(*want, 'V')}, got {got}")
    return logits.detach().cpu().clone()


#: One step of a single attention layer: q, k, v of the next t positions -> (B, Hq, t, D).
Op = Callable[[Tensor, Tensor, Tensor], Tensor]


def open_op(subject: Subject, layer: Layer, shape: CacheShape) -> Op:
    """A fresh single-layer operation from a cache or a stateless attention subject."""
    device = device_of(subject)
    if isinstance(subject, CacheSubject):
        return cache_op(subject.new_cache(layer, replace(shape, device=device)), device)
    if isinstance(subject, AttentionSubject):
        return StatelessOp(subject, layer)
    raise ContractError("decoder subjects have no single-layer operation")


def cache_op(cache: LayerCache, device: torch.device) -> Op:
    """A cache as a single-layer operation: its inputs go to `device`, its output comes back."""

    def step(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.to(device) for x in (q, k, v))
        return attention(q, *checked_update(cache, k, v)).cpu()

    return step


class StatelessOp:
    """Keeps all keys and values, and hands them to `attend` at each step."""

    def __init__(self, subject: AttentionSubject, layer: Layer) -> None:
        self.subject, self.layer, self.device = subject, layer, device_of(subject)
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.to(self.device) for x in (q, k, v))
        self.keys.append(k)
        self.values.append(v)
        keys, values = torch.cat(self.keys, 2), torch.cat(self.values, 2)
        out = self.subject.attend(q, keys, values, self.layer)
        if not isinstance(out, Tensor) or out.shape != q.shape:
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise ContractError(f"attend() must return {tuple(q.shape)}, got {got}")
        return out.cpu()


def run_op(op: Op, x: Inputs, schedule: Schedule) -> Tensor:
    """Run the inputs through a plain schedule, step by step; returns (B, Hq, n, D)."""
    return torch.cat([op(*x.span(a, b)) for a, b in schedule.spans()], 2).detach()
