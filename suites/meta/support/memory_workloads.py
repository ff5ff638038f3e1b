"""Attention written so that its peak can be worked out by hand, and the worked-out bytes.

Shapes throughout: q, k, v (1, H, S, D) in float32, 4 bytes an element.  Bytes are counted beyond
the inputs and include the result.  `python memory_workloads.py` prints what is measured, as JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from harness.law import Layer
from harness.memory import measure

SHAPES = ((2, 1024, 64), (3, 512, 32))  # (H, S, D)
WINDOW, BLOCK, SLICES = 65, 64, 8


@dataclass(frozen=True)
class Workload:
    """A call, and the bytes that it must peak and retain."""

    name: str
    call: Callable[[], Tensor]
    peak: int
    retained: int


def inputs(heads: int, n: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, n, width, generator=generator) for _ in range(3))
    return q, k, v


def weigh(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    """Scores, weights, result: three allocations, all alive at the end.

    The scores are masked in place by a mask that exists already.  For t queries and n keys that is
    4Htn + 4Htn + 4HtD bytes.  As a separate function it drops scores and weights on return; in the
    body of a loop they would stay alive during the next round.
    """
    scores = (q @ k.transpose(-1, -2)).mul_(q.shape[-1] ** -0.5).masked_fill_(hidden, -torch.inf)
    weights = torch.softmax(scores, -1)
    return weights @ v


def banded(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    """A window of WINDOW keys in blocks of BLOCK queries, each over the keys that it can see."""
    out = torch.empty_like(q)
    for start in range(0, q.shape[2], BLOCK):
        rows, first = slice(start, start + BLOCK), max(0, start - WINDOW + 1)
        keys = slice(first, start + BLOCK)
        out[:, :, rows] = weigh(q[:, :, rows], k[:, :, keys], v[:, :, keys],
                                hidden[:, first - start - BLOCK :])  # fmt: skip
    return out


def sliced(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor) -> Tensor:
    """SLICES slices of the queries, each over all keys, put together at the end."""
    parts = zip(q.chunk(SLICES, 2), hidden.chunk(SLICES, 0), strict=True)
    return torch.cat([weigh(part, k, v, mask) for part, mask in parts], 2)


def band_hidden() -> Tensor:
    """What a block of queries must not see of the BLOCK + WINDOW - 1 keys up to its last."""
    span = BLOCK + WINDOW - 1
    return ~Layer(window=WINDOW).mask(WINDOW - 1, BLOCK, span)


def workspace(n: int, width: int) -> int:
    """Scratch bytes of torch's flash attention on the CPU, on one thread, in float32.

    FlashAttentionKernel.cpp, `cpu_flash_attention`, takes one buffer a thread: scores of a query
    block by a key block, their running maximum and sum, and the block's result.  Key blocks have
    512 rows; query blocks 256 from 768 queries on, 64 from 192 on, else 32.
    """
    rows = 256 if n >= 768 else 64 if n >= 192 else 32
    columns = min(512, n)
    return 4 * (rows * columns + 2 * rows + rows * width)


def workloads(heads: int, n: int, width: int) -> Iterator[Workload]:
    """Dense, banded, sliced and flash attention at one shape, with their truth."""
    q, k, v = inputs(heads, n, width)
    h, s, d = heads, n, width
    out = 4 * h * s * d
    causal, band = ~Layer().mask(0, n, n), band_hidden()

    # Scores and weights S x S, and the result.
    yield Workload("dense", lambda: weigh(q, k, v, causal), 2 * 4 * h * s * s + out, out)

    # The result, and in a full block scores and weights BLOCK x span and the block's result.
    block = 2 * 4 * h * BLOCK * (BLOCK + WINDOW - 1) + 4 * h * BLOCK * d
    yield Workload("banded", lambda: banded(q, k, v, band), out + block, out)

    # In the last slice all parts of the result and its scores and weights; at the end, when scores
    # and weights are gone, all parts and the result made of them.
    last = out + 2 * 4 * h * (s // SLICES) * s
    yield Workload("sliced", lambda: sliced(q, k, v, causal), max(last, 2 * out), out)

    # The result, one log-sum-exp a query, and the workspace.
    flash = out + 4 * h * s + workspace(s, d)
    yield Workload(
        "flash", lambda: scaled_dot_product_attention(q, k, v, is_causal=True), flash, out
    )


def readings() -> dict[str, list[int]]:
    """Peak, allocated and retained bytes and the number of allocations, by workload and shape."""
    out = {}
    for shape in SHAPES:
        for load in workloads(*shape):
            m = measure(load.call)
            out[f"{load.name} {shape}"] = [
                m.peak_bytes,
                m.allocated_bytes,
                m.retained_bytes,
                m.allocations,
            ]
    return out


if __name__ == "__main__":
    print(json.dumps(readings()))
