"""The forward on one thread of a CPU as two matrix products for each block of queries.

The blocks are short, 32 queries of each head, so that a row computes few scores that it does not
need: window + 31, of which window count.  Short blocks are only fast in a BLAS library if it finds
both factors row by row, so the keys of a head are transposed once, a piece of the sequence at a
time; the sweep over that piece then reads them many times.  Between the products the scores of a
few blocks stay in the cache.  All scores of a row are there at once, so the softmax needs no
rescaling: largest score, difference, factor, power of two, sum.
The factor comes after the difference, so that it rounds little even where scores are in thousands.

Powers of two because torch's `exp2` is vectorised by torch itself, and `exp` by MKL, which is four
times slower on processors of other makers.

Half precision runs in float32, which is faster wherever the CPU does not multiply half precision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from harness.schemes.band.blocks import Run, query_runs
from harness.schemes.band.engines import Rows, accumulator

#: Queries whose keys are transposed together.  The keys of a window are transposed again for the
#: next piece, which costs less than the cache misses of longer pieces save.
PIECE = 1024

#: Blocks go into one call until it has this many rows, or its scores this many bytes: measured.
#: Fewer cost more calls, more leave the second-level cache between the two products.
_CALL_ROWS, _CALL_BYTES = 256, 2**18

#: Instructions for products of half precision, as `torch.cpu.get_capabilities` names them.
_INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
    torch.float16: ("avx512_fp16", "amx_fp16", "fp16_arith"),
}

#: Fewer queries than these are not worth the copies of their keys.
_FEWEST = 64

#: Queries of a head in a block, and rows of all heads that share a key head: fewer slow a product.
_QUERIES, _ROWS = 32, 64

#: More elements in a row of the transposed keys, which is otherwise often a power of two apart from
#: the next: such rows share a few sets of the cache.
_PAD = 16


def takes(q: Tensor, scale: float) -> bool:
    """True if products are the fastest forward for queries (B, H, S, D), and may be used.

    Not on several threads, which meet after every operation: on a busy machine they spend most of
    their time waiting for each other.  Not in a traced graph, whose length would grow with the
    number of blocks.  Not with a scale that is not positive, under which the largest product is not
    the largest score.
    """
    if q.device.type != "cpu" or q.shape[2] < _FEWEST or torch.compiler.is_compiling():
        return False
    return scale > 0 and torch.get_num_threads() == 1 and not multiplies(q.dtype)


def multiplies(dtype: torch.dtype) -> bool:
    """True if this CPU has instructions for products of a half-precision dtype."""
    able = torch.cpu.get_capabilities()
    return any(able.get(name) for name in _INSTRUCTIONS.get(dtype, ()))


def block_queries(groups: int) -> int:
    """Queries in a block, of each of `groups` heads that share keys."""
    return max(_QUERIES, _ROWS // groups)


class Products:
    """The forward of one shape of call, with its scratch memory and the masks of its corners.

    like: queries (B, Hq, Sq, D).  groups: query heads to a key head.  size: queries in a block.
    """

    def __init__(self, like: Tensor, groups: int, window: int, scale: float, size: int) -> None:
        self.groups, self.window, self.size, self.scale = groups, window, size, scale
        queries, width = min(PIECE, like.shape[2]), like.shape[3]
        keys = queries + window  # one more than a piece reads, for an even first key
        wide, most = accumulator(like.dtype), size * groups * (window + size)
        blocks = _CALL_ROWS // (size * groups), _CALL_BYTES // (most * wide.itemsize)
        self.count = max(1, *blocks)

        def room(*shape: int) -> Tensor:
            return torch.empty(shape, dtype=wide)

        # One memory for the keys before they are transposed and, after that, for the values.
        self.rows, self.columns = room(keys + _PAD, width), room((keys + _PAD) * width)
        self.q, self.out = room(queries * groups, width), room(queries * groups, width)
        self.largest, self.sums = room(queries * groups), room(queries * groups)
        self.scores = room(self.count * most)
        self.masks: dict[tuple[int, int], Corners] = {}

    def attend(self, row: Rows) -> None:
        """Write out (Hq, Sq, D) and logsumexp (Hq, Sq) of one batch row."""
        n_queries, n_keys = row.q.shape[1], row.k.shape[1]
        before = n_keys - n_queries
        for start in range(0, n_queries, PIECE):
            end = min(start + PIECE, n_queries)
            # From an even key on, like every block of the piece: see `query_runs`.
            first = max(0, before + start - self.window + 1) // 2 * 2
            runs = query_runs(end - start, before + end - first, self.window, self.size, self.count)
            q, out, logsumexp = (x[:, start:end] for x in (row.q, row.out, row.logsumexp))
            k, v = (x[:, first : before + end] for x in (row.k, row.v))
            for head in range(len(k)):
                to = slice(head * self.groups, (head + 1) * self.groups)
                self._head(Rows(q[to], k[head], v[head], out[to], logsumexp[to]), runs)

    def _head(self, part: Rows, runs: tuple[Run, ...]) -> None:
        """One key head of a piece: q, out (groups, n, D), k, v (keys, D), logsumexp (groups, n)."""
        n, shape = part.q.shape[1], (part.q.shape[1], self.groups, -1)
        rows = n * self.groups
        largest, sums, out = self.largest[:rows], self.sums[:rows], self.out[:rows]
        queries = self.q[:rows]
        queries.view(shape).copy_(part.q.transpose(0, 1))
        keys = self._transposed(part.k)
        values = self.rows[: len(part.v)].copy_(part.v)
        for run in runs:
            block = run.n_queries * self.groups
            at = slice(run.query * self.groups, run.query * self.groups + run.count * block)
            into = (x[at].view(run.count, block, -1) for x in (queries, out, largest, sums))
            self._blocks(run, keys, values, *into)
        torch.div(out.view(shape), sums.view(shape), out=part.out.transpose(0, 1))
        torch.add(
            sums.log_().view(n, -1).t(),
            largest.view(n, -1).t(),
            alpha=self.scale,
            out=part.logsumexp,
        )

    def _transposed(self, keys: Tensor) -> Tensor:
        """(keys, D) -> (D, keys) row by row, in scratch memory.

        Through a copy: torch transposes fast only what is contiguous.
        """
        n, width = keys.shape
        rows = self.rows[: n + _PAD]
        rows[:n].copy_(keys)
        return self.columns[: rows.numel()].view(width, n + _PAD).copy_(rows.t())[:, :n]

    def _blocks(
        self, run: Run, keys: Tensor, values: Tensor, q: Tensor, out: Tensor, *stats: Tensor
    ) -> None:
        """The blocks of a run: q, out (count, rows, D), largest and sums (count, rows, 1)."""
        largest, sums = stats
        count, rows, _ = q.shape
        scores = self.scores[: count * rows * run.n_keys].view(count, rows, run.n_keys)
        torch.bmm(q, _windows(keys, 1, run), out=scores)
        self._corners(run).hide(scores.view(count, run.n_queries, self.groups, -1))
        torch.amax(scores, -1, keepdim=True, out=largest)
        torch.exp2(scores.sub_(largest).mul_(self.scale / math.log(2.0)), out=scores)
        torch.sum(scores, -1, keepdim=True, out=sums)
        torch.bmm(scores, _windows(values, 0, run), out=out)

    def _corners(self, run: Run) -> Corners:
        key = run.n_queries, run.shift
        if key not in self.masks:
            self.masks[key] = Corners.of(run, self.window)
        return self.masks[key]


@dataclass(frozen=True)
class Corners:
    """The keys of a block that some of its queries do not see: its first columns, and its last.

    old (n, 1, columns), new (n, 1, n - 1): True where the query does not see the key.
    """

    old: Tensor
    new: Tensor

    @staticmethod
    def of(run: Run, window: int) -> Corners:
        n, past = run.n_queries, run.shift - window  # the first query does not see columns <= past
        old = torch.ones(n, max(0, past + n), dtype=torch.bool).tril_(past)
        new = torch.ones(n, n - 1, dtype=torch.bool).triu_()
        return Corners(old[:, None], new[:, None])

    def hide(self, scores: Tensor) -> None:
        """Set the scores (count, n, groups, keys) of keys that a query does not see to -inf."""
        keys, old, new = scores.shape[-1], self.old.shape[-1], self.new.shape[-1]
        scores[..., :old].masked_fill_(self.old, -math.inf)
        scores[..., keys - new :].masked_fill_(self.new, -math.inf)


def _windows(x: Tensor, along: int, run: Run) -> Tensor:
    """The keys of each block as a view, with an axis of blocks in front."""
    span = x.narrow(along, run.key, (run.count - 1) * run.step + run.n_keys)
    windows = span.unfold(along, run.n_keys, run.step).movedim(along, 0)
    return windows if along else windows.transpose(1, 2)
