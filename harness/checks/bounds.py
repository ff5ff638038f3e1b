"""The oracle of a decoder's run: exact logits, the bound of each row, and the guard's margin.

All of it is a function of the model, the precision and the tokens alone, and many schedules feed
the same tokens, so that it is kept.  What float64 says is kept once for all subjects of one
`dense_key`: most of the work is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.drive import open_decoder
from harness.contract import (
    CacheSubject,
    Decoder,
    DecoderSubject,
    Subject,
    Unsupported,
    optional,
)
from harness.law import influence
from harness.reference import tolerance
from harness.reference.decoder import dense_logits, make_weights

#: Rows, or errors of rows, of each neighbouring law, by what it says otherwise.
Named = Sequence[tuple[str, Tensor]]


@dataclass(frozen=True)
class Reference:
    """exact (B, n, V) float64 logits; bound (n,); margin: bounds to the nearest wrong law.

    wrong: (name, row errors (n,)) of each neighbouring law.  doubt: why the subject's own dense
    run, from which the bound is, cannot be trusted.
    """

    exact: Tensor
    bound: Tensor
    margin: float | None
    wrong: Named
    doubt: str = ""


def reference_for(subject: Subject, decoder: Decoder, case: Case, tokens: Tensor) -> Reference:
    """The reference of what `decoder` was fed: tokens (B, n)."""
    if optional(decoder, "stated_masks"):  # its law is a function of what this very run was fed
        own = decoder.dense(tokens)
        bound = _bound(case, own, own)
        wrong = _errors(own, _wrong_of_decoder(decoder, case, tokens))
        return Reference(own.double(), bound, _margin(wrong, bound), wrong)
    # A cache's body, weights and oracle are the harness's own, whoever the subject is.
    kind = None if isinstance(subject, CacheSubject) else type(subject)
    key = (kind, case.model, case.dtype, case.batch, tokens.numpy().tobytes())
    if key not in _kept:
        made = _of_harness(case, tokens) if kind is None else _of(subject, case, tokens, key)
        _keep(_kept, key, made)
    return _kept[key]


@dataclass(frozen=True)
class _Exact:
    """logits (B, n, V) in float64; wrong: row errors (n,) of each neighbouring law."""

    logits: Tensor
    wrong: Named


_KEPT_MOST = 256
_kept: dict[tuple[object, ...], Reference] = {}
_exact: dict[tuple[object, ...], _Exact] = {}


def forget() -> None:
    """Drop what is kept; for tests that change the bound or the seeds under it."""
    _kept.clear()
    _exact.clear()


def _keep(kept: dict[tuple[object, ...], Any], key: tuple[object, ...], made: Any) -> Any:
    """Put `made` under `key`; the oldest goes where there are many."""
    if len(kept) >= _KEPT_MOST:
        del kept[next(iter(kept))]
    kept[key] = made
    return made


def _of(subject: Subject, case: Case, tokens: Tensor, key: tuple[object, ...]) -> Reference:
    assert isinstance(subject, DecoderSubject)
    key = (optional(subject, "dense_key") or key[0], *key[1:])
    exact = _exact.get(key) or _keep(_exact, key, _exact_of(subject, case, tokens))
    own = open_decoder(subject, case).dense(tokens)
    bound = _bound(case, own, exact.logits)
    doubt = _doubt(case, own, exact.logits, optional(subject, "stored") or case.dtype)
    margin = _margin(exact.wrong, bound)
    return Reference(exact.logits.double(), bound, margin, exact.wrong, doubt)


def _doubt(case: Case, own: Tensor, exact: Tensor, stored: str) -> str:
    """stored: the precision in which keys and values are held."""
    model = case.model
    unit = max(torch.finfo(dtype).eps for dtype in (own.dtype, getattr(torch, stored))) / 2
    off = tolerance.unexplained(own, exact, _keys(case, own), model.head_dim, model.n_layers, unit)
    if off <= tolerance.DOUBT:
        return ""
    return (
        f"dense() in {case.dtype} is not dense() in float64: off by {off:.3g} times what rounding "
        f"explains, up to {tolerance.DOUBT:g} are allowed"
    )


def _exact_of(subject: DecoderSubject, case: Case, tokens: Tensor) -> _Exact:
    decoder = _float64(subject, case)
    logits = decoder.dense(tokens)
    return _Exact(logits, _errors(logits, _wrong_of_decoder(decoder, case, tokens)))


def _of_harness(case: Case, tokens: Tensor) -> Reference:
    weights = make_weights(case.model, case.vocab, case.weights_seed)
    exact = dense_logits(weights, tokens)
    own = dense_logits(weights.to(getattr(torch, case.dtype)), tokens)
    bound = _bound(case, own, exact)
    wrong = _errors(exact, _wrong_of_harness(case, tokens))
    return Reference(exact, bound, _margin(wrong, bound), wrong)


def _errors(exact: Tensor, wrong: Iterable[tuple[str, Tensor]]) -> Named:
    return [(name, tolerance.row_error(other, exact)) for name, other in wrong]


def _margin(wrong: Named, bound: Tensor) -> float | None:
    return tolerance.nearest((errors for _, errors in wrong), bound)


def _float64(subject: DecoderSubject, case: Case) -> Decoder:
    """A decoder in float64 where the subject can, in the case's own precision where it cannot."""
    try:
        return subject.open(case.with_dtype("float64"))
    except Unsupported:
        return subject.open(case)


def _bound(case: Case, own: Tensor, exact: Tensor) -> Tensor:
    model = case.model
    return tolerance.row_bound(own, exact, _keys(case, own), model.head_dim, model.n_layers)


def _keys(case: Case, own: Tensor) -> Tensor:
    """(n,): how many tokens reach each row."""
    n = own.shape[1]
    masks = [layer.mask(0, n, n) for layer in case.model.layers]
    return influence(masks, case.model.kv_sources).sum(-1)


def _wrong_of_decoder(decoder: Decoder, case: Case, tokens: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Logits of the neighbouring laws: one wrong layer each."""
    truth = case.model.layers
    for layers in tolerance.wrong_stacks(truth, tokens.shape[1]):
        yield tolerance.difference(truth, layers), decoder.dense(tokens, layers)


def _wrong_of_harness(case: Case, tokens: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same in the harness's decoder, and positions that are off by one."""
    n, truth = tokens.shape[1], case.model.layers
    weights = make_weights(case.model, case.vocab, case.weights_seed)
    for layers in tolerance.wrong_stacks(truth, n):
        yield tolerance.difference(truth, layers), dense_logits(weights, tokens, layers)
    # Where every query sees itself alone, positions cancel: no answer depends on them.
    if n > case.window and any(layer.window != 1 for layer in truth):
        stalled = torch.arange(n)
        stalled[case.window :] -= 1  # positions that stall once, when the window is full
        yield "positions off by one", dense_logits(weights, tokens, positions=stalled)
