"""Sliding-window attention as a band of blocks, with a backward of its own.

Memory is at most O(S * (window + block)), on any device and in any floating-point dtype.  Like
flash attention, the forward keeps the output and the logsumexp of each row, and the backward
recomputes the scores from them, block by block.  The backward goes through blocks of keys: each
block then completes the gradients of its keys at once, and only those of the queries are added up.
(Plain autograd through slices fills a gradient of full length for each slice, which is
O(S**2 / block).)

Where they are fastest, the forward is plain matrix products (`products`); elsewhere an engine
attends to a few blocks at a time.

Keys and values are never expanded to the number of query heads.  In the forward, the rows of all
query heads that share a key head become the rows of one block.  In the backward, the keys of the
blocks in one call are repeated, for that call only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.law import check_int
from harness.schemes.band import products
from harness.schemes.band.blocks import BandMasks, Run, key_runs, query_runs
from harness.schemes.band.engines import (
    Engine,
    Gradients,
    Rows,
    accumulator,
    as_written,
    engine_for,
)
from harness.schemes.band.sizes import Sizes, block_sizes
from harness.schemes.validation import check_attention

#: How many blocks of one shape go into one call.  More blocks mean fewer barriers between threads,
#: but more temporaries.  Half precision fits twice as many into the same bytes.
_FORWARD_BLOCKS, _HALF_FORWARD_BLOCKS, _BACKWARD_BLOCKS = 8, 16, 2


def banded(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int,
    scale: float | None = None,
    sizes: Sizes | None = None,
) -> Tensor:
    """Causal attention with a sliding window, differentiable once.

    q (B, Hq, Sq, D); k, v (B, Hkv, Sk, D), Hq % Hkv == 0; the queries are the last Sq of the Sk
    positions.  window: keys that a query sees, its own included.  scale: 1 / sqrt(D) by default.
    sizes: those of the blocks, by default `sizes_for`.  Returns (B, Hq, Sq, D), laid out as
    (B, Sq, Hq, D).  Raises ValueError (TypeError for a non-tensor) naming what does not fit.
    """
    check_attention(q, k, v)
    check_int("window", window, 1)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if sizes is None:
        sizes = sizes_for(q, q.shape[1] // k.shape[1], window, scale)
    check_int("sizes.forward", sizes.forward, 1)
    check_int("sizes.backward", sizes.backward, 1)
    window = min(window, k.shape[2])
    out: Tensor = _Banded.apply(q, k, v, window, scale, sizes)  # type: ignore[no-untyped-call]
    return out


def sizes_for(q: Tensor, groups: int, window: int, scale: float) -> Sizes:
    """The block sizes that `banded` chooses for queries (B, H, S, D)."""
    sizes = block_sizes(window, groups, q.dtype)
    if products.takes(q, scale):
        return replace(sizes, forward=products.block_queries(groups))
    return sizes


class _Banded(torch.autograd.Function):
    """`band_forward` and `band_backward` for autograd."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int, scale: float, sizes: Sizes
    ) -> Tensor:
        out, logsumexp = band_forward(q, k, v, window, scale, sizes.forward)
        ctx.save_for_backward(q, k, v, out, logsumexp)
        ctx.band = window, scale, sizes.backward
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        found = _Gradients.apply(grad, *ctx.saved_tensors, *ctx.band)  # type: ignore[no-untyped-call]
        return (*found, None, None, None)


class _Gradients(torch.autograd.Function):
    """`band_backward` as an autograd node of its own, whose own derivative is an error.

    `once_differentiable` is not enough: `torch.autograd.grad` visits only nodes that lead to its
    inputs.  It would skip the node that raises, and drop this part of a second derivative.
    """

    @staticmethod
    def forward(ctx: Any, grad: Tensor, *inputs: Any) -> Gradients:
        del ctx
        # Autograd sees tensors that are arguments, not those inside a tuple.
        *rows, window, scale, size = inputs
        return band_backward(grad, Rows(*rows), window, scale, size)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        del ctx, grads
        raise RuntimeError("banded attention has a first derivative only, no second")


def band_forward(
    q: Tensor, k: Tensor, v: Tensor, window: int, scale: float, size: int
) -> tuple[Tensor, Tensor]:
    """(out (B, Hq, Sq, D), logsumexp (B, Hq, Sq)), by blocks of `size` queries."""
    out = _empty(q, q.dtype)
    logsumexp = q.new_empty(q.shape[:3], dtype=accumulator(q.dtype))
    step = _by_products if products.takes(q, scale) else _by_engine
    step(Rows(q, k, v, out, logsumexp), window, scale, size)
    return out, logsumexp


def _by_products(rows: Rows, window: int, scale: float, size: int) -> None:
    """The forward as plain products; writes out and logsumexp."""
    with as_written(rows.q):
        kernel = products.Products(rows.q, rows.q.shape[1] // rows.k.shape[1], window, scale, size)
        for row in _batch(rows):
            kernel.attend(row)


def _by_engine(rows: Rows, window: int, scale: float, size: int) -> None:
    """The forward by an engine for blocks; writes out and logsumexp."""
    q, k, v, out, logsumexp = rows
    unseen = max(0, k.shape[2] - q.shape[2] - window + 1) // 2 * 2  # blocks begin at even keys
    k, v = k[:, :, unseen:], v[:, :, unseen:]
    if q.shape[2] > size:
        k, v = _head_by_head(k), _head_by_head(v)
    q, k, v = (_unit_stride(x) for x in (q, k, v))
    most = _HALF_FORWARD_BLOCKS if q.dtype.itemsize == 2 else _FORWARD_BLOCKS
    engine, runs = engine_for(q), query_runs(q.shape[2], k.shape[2], window, size, most)
    masks = BandMasks(runs, window, q, q.shape[1] // k.shape[1])
    for row in _batch(Rows(q, k, v, out, logsumexp)):
        for run in runs:
            _forward_run(engine, run, masks.of(run), scale, row)


def _forward_run(engine: Engine, run: Run, mask: Tensor, scale: float, row: Rows) -> None:
    """One run of one batch row; writes its rows of out and logsumexp."""
    groups = row.q.shape[0] // row.k.shape[0]
    # (Hkv, count, groups, n, D): all rows that read the same keys become rows of one block, and
    # blocks that share most of their keys are next to each other.
    queries = _shared(run.queries_of(row.q), groups).flatten(2, 3)
    found = engine.forward(queries, run.keys_of(row.k), run.keys_of(row.v), mask, scale)
    for whole, part in zip((row.out, row.logsumexp), found, strict=True):
        to = _shared(run.queries_of(whole), groups)
        to.copy_(part.view(*part.shape[:2], groups, run.n_queries, *part.shape[3:]))


def band_backward(grad: Tensor, rows: Rows, window: int, scale: float, size: int) -> Gradients:
    """(dq, dk, dv) shaped like q, k, v, from what `band_forward` gave, by blocks of `size` keys."""
    grad, q, k, v = (_unit_stride(x) for x in (grad, *rows[:3]))
    engine, runs = engine_for(q), key_runs(q.shape[2], k.shape[2], window, size, _BACKWARD_BLOCKS)
    masks = BandMasks(runs, window, q)
    # A query's gradient is a sum over blocks, which half precision would round at every step.
    dq = _empty(q, accumulator(q.dtype)).zero_()
    dk, dv = _empty(k, k.dtype), _empty(v, v.dtype)
    unseen = runs[0].key
    dk[:, :, :unseen], dv[:, :, :unseen] = 0, 0
    batch = _batch(Rows(q, k, v, rows.out, rows.logsumexp))
    for row, row_grad, *into in zip(batch, grad, dq, dk, dv, strict=True):
        for run in runs:
            _backward_run(engine, run, masks.of(run), scale, row, row_grad, into)
    return dq.to(q.dtype), dk, dv


def _backward_run(
    engine: Engine,
    run: Run,
    mask: Tensor,
    scale: float,
    row: Rows,
    grad: Tensor,
    into: Sequence[Tensor],
) -> None:
    """One run of one batch row; into: its (dq, dk, dv), of which dq is added to, dk, dv written."""
    groups = row.q.shape[0] // row.k.shape[0]
    keys, values = run.keys_of(row.k), run.keys_of(row.v)
    if groups > 1:
        keys, values = (x.repeat_interleave(groups, dim=0) for x in (keys, values))
    q, out, logsumexp = (run.queries_of(x) for x in (row.q, row.out, row.logsumexp))
    block = Rows(q, keys, values, out, logsumexp)
    part_q, *parts = engine.backward(run.queries_of(grad), block, mask, scale)
    dq, dk, dv = into
    # The rectangles of a run overlap in their queries: one at a time.
    for to, part in zip(run.queries_of(dq).unbind(1), part_q.unbind(1), strict=True):
        to.add_(part)
    for whole, part in zip((dk, dv), parts, strict=True):
        run.keys_of(whole).copy_(part if groups == 1 else _shared(part, groups).sum(2))


def _batch(rows: Rows) -> Iterator[Rows]:
    """The rows of a batch, one by one."""
    return (Rows(*row) for row in zip(*rows, strict=True))


def _shared(x: Tensor, groups: int) -> Tensor:
    """(Hq, count, …) -> a view (Hkv, count, groups, …): the query heads of each key head."""
    return x.view(-1, groups, *x.shape[1:]).transpose(1, 2)


def _empty(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, H, S, D) like x, laid out as (B, S, H, D), in which models use it next."""
    b, h, s, d = x.shape
    return x.new_empty(b, s, h, d, dtype=dtype).transpose(1, 2)


def _head_by_head(x: Tensor) -> Tensor:
    """Keys or values that several blocks read; in half precision on a CPU, a copy head by head.

    There half-precision products are 5% faster if the keys of a head are contiguous, which they
    are not in the models' layout (B, S, H, D).  The copy costs a fifth of that gain.  Products in
    float32 gain nothing.
    """
    return x.contiguous() if x.dtype.itemsize == 2 and x.device.type == "cpu" else x


def _unit_stride(x: Tensor) -> Tensor:
    """x itself, or a copy if its rows are not contiguous (an expanded gradient, for example)."""
    return x if x.stride(-1) == 1 else x.contiguous()
