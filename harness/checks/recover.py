"""Recovers who attends to whom from outputs alone.

Two probes, both exact:

- a single attention layer is run with q = k = 0, so that every visible key gets the same weight,
  and with values that are one-hot over positions, so that the output *is* the row of weights;
- a whole decoder is run with one token changed at a time: the positions whose logits move are
  those that the token can reach.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.drive import open_op, run_decoder, run_op, tokens_for
from harness.contract import CacheShape, Decoder, Subject, Unsupported, optional
from harness.law import Layer
from harness.reference.inputs import OP_HEAD_DIM, Inputs
from harness.reference.tolerance import moved


def recover_weights(
    subject: Subject, layer: Layer, shape: CacheShape, n_heads: int, case: Case
) -> Tensor:
    """Attention weights (B, Hq, n, n) of a single layer under the case's schedule, by one-hot V.

    Takes ceil(n / D) runs, each with a fresh cache, D = OP_HEAD_DIM.
    """
    n, width = case.schedule.length, OP_HEAD_DIM
    zeros = torch.zeros(case.batch, 1, n, width, dtype=shape.dtype)
    q = zeros.expand(-1, n_heads, -1, -1).contiguous()
    k = zeros.expand(-1, shape.n_kv_heads, -1, -1).contiguous()
    parts = []
    for start in range(0, n, width):
        v = k.clone()
        here = torch.arange(start, min(start + width, n))
        v[:, :, here, here - start] = 1
        op = open_op(subject, layer, shape)
        parts.append(run_op(op, Inputs("one-hot values", q, k, v), case.schedule)[..., : len(here)])
    return torch.cat(parts, -1)


def uneven_row(weights: Tensor) -> int | None:
    """The first query whose visible keys do not share the weight equally, or None.

    A key that is returned twice, or a stray bias, shows here while the visible set is right.
    """
    visible = weights != 0
    share = visible / visible.sum(-1, keepdim=True).clamp(min=1)
    # A softmax over equal scores is exact up to the rounding of one division.
    unit = torch.finfo(weights.dtype).eps
    rows = (~((weights - share).abs() <= unit)).any(-1).flatten(0, 1).any(0)
    bad = rows.nonzero().flatten()
    return int(bad[0]) if len(bad) else None


@dataclass(frozen=True)
class Influence:
    """Which tokens move which logits.

    reached: bool (n, n), row q, column k is True iff changing token k moves the logits at q.
    stated: the masks that the decoder states for itself, None if it states none.  nan: bool (n,),
    positions whose logits are NaN or infinite in some run: nothing is known of what moves them.
    """

    reached: Tensor
    stated: list[Tensor] | None
    nan: Tensor


def recover_influence(open_case: Callable[[Case], Decoder], case: Case) -> Influence:
    """Which tokens reach which logits, by changing one token at a time.

    All changed runs go through at once as rows of a batch; a subject that does not claim such a
    batch is run once per token.
    """
    tokens = tokens_for(case.with_batch(1))
    n = tokens.shape[1]
    changed = tokens.repeat(n + 1, 1)
    # Row 0 stays as it is; in row k + 1 token k becomes another one, never itself.
    other = torch.randint(1, case.vocab, (n,), generator=torch.Generator().manual_seed(case.seed))
    diagonal = torch.arange(n)
    changed[diagonal + 1, diagonal] = (changed[diagonal + 1, diagonal] + other) % case.vocab
    try:
        decoder = open_case(case.with_batch(n + 1))
        logits = run_decoder(decoder, changed, case.schedule).logits
    except Unsupported:
        rows = []
        for row in changed:
            decoder = open_case(case.with_batch(1))
            rows.append(run_decoder(decoder, row[None], case.schedule).logits)
        logits = torch.cat(rows)
    state = optional(decoder, "stated_masks")
    reached = moved(logits[1:], logits[:1]).T
    nan = ~logits.isfinite().all(-1).all(0)
    return Influence(reached, None if state is None else state(n), nan)
