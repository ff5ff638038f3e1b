"""The sizes of blocks with which the engines are fastest, and accurate enough."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: torch's flash attention for the CPU works in tiles of 32 query rows; from 192 rows on the tiles
#: have 64 rows, and from 768 rows on 256.
_TILED_ROWS, _WIDE_ROWS = 192, 768

#: From this window on, a half-precision backward makes its blocks long enough for the wide tiles.
_WIDE_WINDOW = 160


@dataclass(frozen=True)
class Sizes:
    """Queries in a block of the forward, and keys in a block of the backward."""

    forward: int
    backward: int


def block_sizes(window: int, groups: int, dtype: torch.dtype) -> Sizes:
    """The block sizes for a window and `groups` query heads to a key head.

    A block computes window + size - 1 scores for a row that needs only window of them.  So a block
    is at most as long as the window, or 64 rows, since fewer are not worth a call.  The other
    limits are measured on CPUs at head_dim 64 and 256, which agree.  The forward is fastest with
    the 192 rows of a larger tile, counted over all heads that share keys, but with at least 96
    rows of each head.  The backward, whose tiles run along the queries, is fastest with 128 keys,
    and with 192 in half precision.

    In half precision accuracy matters too: the kernel rounds the gradients of keys and values to
    the dtype after every tile of queries.  With the widest tiles that happens as often as in masked
    attention over a long sequence.  With narrow tiles it happens four times as often, and the error
    of dk and dv is half as large again.  From a window of 160 on, the blocks of a half-precision
    backward therefore see at least the 768 queries of the widest tiles, even if they then have more
    keys than the window.
    """
    forward = max(96, _TILED_ROWS // groups)
    longest = max(window, 64)
    if dtype.itemsize != 2:
        return Sizes(min(forward, longest), min(128, longest))
    if window < _WIDE_WINDOW:
        return Sizes(min(forward, longest), min(192, longest))
    return Sizes(min(forward, longest), max(192, _WIDE_ROWS + 1 - window))
