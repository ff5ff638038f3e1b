"""The reference for a decoder's run: exact logits, the bound of each row, the guard's margin.

It depends only on the model, the precision and the tokens.  Many schedules feed the same tokens,
so each reference is kept.  The float64 logits, which are most of the work, are kept once for all
subjects with the same `dense_key`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.common import stored_dtype
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

#: (name, rows or row errors) of each neighbouring law; its name says how it differs.
Named = Sequence[tuple[str, Tensor]]


@dataclass(frozen=True)
class Reference:
    """exact: float64 logits (B, n, V); bound (n,); wrong: row errors (n,) of neighbouring laws.

    margin: how many bounds away the nearest wrong law is; None if there is none to compare.
    doubt: why the subject's own dense run, from which the bound is derived, cannot be trusted; ""
    if it can.
    """

    exact: Tensor
    bound: Tensor
    margin: float | None
    wrong: Named
    doubt: str = ""


def reference_for(subject: Subject, decoder: Decoder, case: Case, tokens: Tensor) -> Reference:
    """The reference for the tokens (B, n) that `decoder` was fed."""
    if optional(decoder, "stated_masks"):  # its masks depend on how this run was fed
        if case.dtype in ("float16", "bfloat16"):
            raise Unsupported("stated masks are of one run, which has no float64 to compare with")
        own = decoder.dense(tokens)
        bound = _bound(case, own, own)
        wrong = _errors(own, _wrong_of_decoder(decoder, case, tokens))
        return Reference(own.double(), bound, _margin(wrong, bound), wrong)
    # A cache runs in the harness's own decoder: the reference does not depend on the subject.
    kind = None if isinstance(subject, CacheSubject) else type(subject)
    stored = stored_dtype(subject)
    key = (kind, stored, case.model, case.dtype, case.batch, tokens.numpy().tobytes())
    if key not in _kept:
        of_harness = kind is None
        made = _of_harness(case, tokens, stored) if of_harness else _of(subject, case, tokens, key)
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
    """Drop everything that is kept; for tests that change the bound or the seeds."""
    _kept.clear()
    _exact.clear()


def _keep(kept: dict[tuple[object, ...], Any], key: tuple[object, ...], made: Any) -> Any:
    """Store `made` under `key`, dropping the oldest entry if there are too many."""
    if len(kept) >= _KEPT_MOST:
        del kept[next(iter(kept))]
    kept[key] = made
    return made


def _of(subject: Subject, case: Case, tokens: Tensor, key: tuple[object, ...]) -> Reference:
    assert isinstance(subject, DecoderSubject)
    # What float64 says does not depend on `stored`.
    key = (optional(subject, "dense_key") or key[0], *key[2:])
    exact = _exact.get(key) or _keep(_exact, key, _exact_of(subject, case, tokens))
    own = open_decoder(subject, case).dense(tokens)
    bound = _bound(case, own, exact.logits)
    doubt = _doubt(case, own, exact.logits, optional(subject, "stored") or case.dtype)
    cannot_tell_positions = tokens.shape[1] > 1 / torch.finfo(getattr(torch, case.dtype)).eps
    if cannot_tell_positions:
        bound = _of_all(bound)
        margin = _of_positions(case, tokens)
    else:
        margin = _margin(exact.wrong, bound)
    return Reference(exact.logits.double(), bound, margin, exact.wrong, doubt)


def _of_all(bound: Tensor) -> Tensor:
    """One bound for all rows of half precision: any may be as far off as the worst of them."""
    return (bound.amax() * tolerance.SAMPLE_OF_ALL / tolerance.SAMPLE).expand_as(bound)


def _of_positions(case: Case, tokens: Tensor) -> float | None:
    """How many bounds away positions are that were rounded to the case's dtype.

    So many positions as that dtype cannot tell apart are fed to show such rounding: half precision
    does not tell neighbouring windows apart in logits.  Measured on the harness's own decoder of
    the same model, since a subject's dense run takes no positions.
    """
    dtype = getattr(torch, case.dtype)
    weights = make_weights(case.model, case.vocab, case.weights_seed)
    exact = dense_logits(weights, tokens)
    bound = _bound(case, dense_logits(weights.to(dtype), tokens), exact)
    bound = _of_all(bound)
    rounded = torch.arange(tokens.shape[1]).to(dtype).double()
    wrong = dense_logits(weights, tokens, positions=rounded)
    return tolerance.margin(exact, [wrong], bound)


def _doubt(case: Case, own: Tensor, exact: Tensor, stored: str) -> str:
    """Why the dense run `own` cannot be trusted, or "".

    stored: the precision in which keys and values are held.
    """
    model = case.model
    unit = max(torch.finfo(dtype).eps for dtype in (own.dtype, getattr(torch, stored))) / 2
    off = tolerance.unexplained(own, exact, _keys(case, own), model.head_dim, model.n_layers, unit)
    if off <= tolerance.DOUBT:
        return ""
    return (
        f"dense() in {case.dtype} differs from dense() in float64 by {off:.3g} times what rounding "
        f"explains; up to {tolerance.DOUBT:g} are allowed"
    )


def _exact_of(subject: DecoderSubject, case: Case, tokens: Tensor) -> _Exact:
    decoder = _float64(subject, case)
    logits = decoder.dense(tokens)
    return _Exact(logits, _errors(logits, _wrong_of_decoder(decoder, case, tokens)))


def _of_harness(case: Case, tokens: Tensor, stored: torch.dtype | None) -> Reference:
    weights = make_weights(case.model, case.vocab, case.weights_seed)
    exact = dense_logits(weights, tokens)
    own = dense_logits(weights.to(getattr(torch, case.dtype)), tokens, stored=stored)
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
    """(name, logits) under each neighbouring law, with one wrong layer at a time."""
    truth = case.model.layers
    for layers in tolerance.wrong_stacks(truth, tokens.shape[1]):
        yield tolerance.difference(truth, layers), decoder.dense(tokens, layers)


def _wrong_of_harness(case: Case, tokens: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same for the harness's own decoder, and with positions that are off by one."""
    n, truth = tokens.shape[1], case.model.layers
    weights = make_weights(case.model, case.vocab, case.weights_seed)
    for layers in tolerance.wrong_stacks(truth, n):
        yield tolerance.difference(truth, layers), dense_logits(weights, tokens, layers)
    # Where every query sees only itself, positions cancel out: no answer depends on them.
    if n > case.window and any(layer.window != 1 and layer.chunk is None for layer in truth):
        stalled = torch.arange(n)
        stalled[case.window :] -= 1  # positions that stall once, when the window is full
        yield "positions off by one", dense_logits(weights, tokens, positions=stalled)
