"""How a causal band is cut into blocks: which rows, which columns, and the mask between them.

Positions are those of the keys, 0 … Sk - 1; the queries are the last Sq of them.  The query at q
sees the keys q - window + 1 … q.  A block of queries needs the keys of its own positions and the
window - 1 before them.  A block of keys is seen by the queries of its own positions and of the
window - 1 after them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Run:
    """`count` equal rectangles down the band, each `step` positions after the one before.

    query, n_queries: first row (0 … Sq - 1) and number of rows of the first rectangle.  key,
    n_keys: its first key position and number of keys.  shift: the position of its first query
    minus that of its first key.  shift and window determine the mask.
    """

    query: int
    n_queries: int
    key: int
    n_keys: int
    shift: int
    step: int
    count: int = 1

    def queries_of(self, x: Tensor) -> Tensor:
        """x (H, Sq, …) -> a view (H, count, n_queries, …) of the rows of each rectangle."""
        return _windows(x, self.query, self.n_queries, self.step, self.count)

    def keys_of(self, x: Tensor) -> Tensor:
        """x (H, Sk, D) -> a view (H, count, n_keys, D) of the keys of each rectangle."""
        return _windows(x, self.key, self.n_keys, self.step, self.count)


def _windows(x: Tensor, start: int, length: int, step: int, count: int) -> Tensor:
    span = x[:, start : start + (count - 1) * step + length]
    return span.unfold(1, length, step).movedim(-1, 2)


def query_runs(
    n_queries: int, n_keys: int, window: int, size: int, most: int = 1
) -> tuple[Run, ...]:
    """Every query row once, in blocks of `size`, each with all the keys that it sees.

    Blocks of an even size begin at an even key, even if their first query does not see it:
    half-precision products take keys in pairs, and are 2% slower if one is left over.  The rows
    that are left over form the first block, which sees the fewest keys if none come before it.
    """
    before = n_keys - n_queries
    pair = 2 if size % 2 == 0 else 1  # blocks of an odd size would then differ, and not join
    blocks = []
    for end in range((n_queries - 1) % size + 1, n_queries + 1, size):
        start = max(0, end - size)
        first = max(0, before + start - window + 1) // pair * pair
        length = before + end - first
        blocks.append(Run(start, end - start, first, length, before + start - first, size))
    return tuple(_joined(blocks, most))


def key_runs(n_queries: int, n_keys: int, window: int, size: int, most: int = 1) -> tuple[Run, ...]:
    """Once each key that a query sees, in blocks of `size`, each with all queries that see it."""
    before = n_keys - n_queries
    blocks = []
    for start in range(max(0, before - window + 1), n_keys, size):
        end = min(start + size, n_keys)
        first, last = max(start, before), min(end + window - 1, n_keys)
        blocks.append(Run(first - before, last - first, start, end - start, first - start, size))
    return tuple(_joined(blocks, most))


def _joined(blocks: Iterable[Run], most: int) -> Iterator[Run]:
    """Consecutive blocks of one shape as one run, of at most `most` rectangles."""
    held: Run | None = None
    count = 0
    for block in blocks:
        if held is not None and count < most and _continues(held, count, block):
            count += 1
            continue
        if held is not None:
            yield replace(held, count=count)
        held, count = block, 1
    if held is not None:
        yield replace(held, count=count)


def _continues(held: Run, count: int, block: Run) -> bool:
    at = count * held.step
    same = (held.n_queries, held.n_keys, held.shift) == (block.n_queries, block.n_keys, block.shift)
    return same and (held.query + at, held.key + at) == (block.query, block.key)


class BandMasks:
    """The additive masks of blocks, all of them cut from one template.

    A mask depends only on the block's shape and shift, and a smaller shift gives the same mask
    without its first columns.  So the template is the largest mask, and contains every other.

    groups: how many heads' rows are stacked in a block.  The template holds the mask that many
    times, so that only a block with fewer rows needs a copy.
    """

    def __init__(self, runs: Sequence[Run], window: int, like: Tensor, groups: int = 1) -> None:
        self.shift = max(run.shift for run in runs)
        rows = max(run.n_queries for run in runs)
        columns = max(self.shift - run.shift + run.n_keys for run in runs)
        visible = torch.ones(rows, columns, dtype=torch.bool, device=like.device)
        visible.tril_(self.shift).triu_(self.shift - window + 1)
        self.template = like.new_full((groups, rows, columns), -torch.inf)
        self.template.masked_fill_(visible, 0.0)

    def of(self, run: Run) -> Tensor:
        """(rows, keys) of each rectangle: 0 where the query sees the key, -inf elsewhere."""
        start = self.shift - run.shift
        return self.template[:, : run.n_queries, start : start + run.n_keys].flatten(0, 1)
