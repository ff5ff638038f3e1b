"""How bytes grow with length: an exact test for linear growth, and an exponent to read."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Equally spaced lengths at which a claim of linear memory is tested: multiples of the usual block
#: sizes, so that no path pays for a partly filled block at one of them and not at another.
LENGTHS = (1024, 2048, 3072)


def second_difference(p1: int, p2: int, p3: int) -> int:
    """p1 - 2 * p2 + p3, in bytes, of peaks at three equally spaced lengths.

    Zero iff the three lie on a line.  A term of c * S**2 bytes adds 2 * c * step**2, however small
    it is next to the others: one byte for each of S * S positions adds 2,097,152 at a step of 1024.
    """
    return p1 - 2 * p2 + p3


def exponent(sizes: Sequence[int], peaks: Sequence[int]) -> float:
    """Slope of the least-squares line through (log size, log peak): 1 for O(S), 2 for O(S**2).

    For reading, not for the gate: a small quadratic term hardly moves it next to a linear one.
    Raises ValueError for fewer than two distinct sizes, unequal lengths, or a number below 1.
    """
    if len(sizes) != len(peaks):
        raise ValueError(f"sizes and peaks must pair up, got {len(sizes)} and {len(peaks)}")
    if len(set(sizes)) < 2:
        raise ValueError(f"sizes must hold two different lengths or more, got {list(sizes)}")
    for name, values in (("sizes", sizes), ("peaks", peaks)):
        if min(values) < 1:
            raise ValueError(f"{name} must be positive, got {list(values)}")
    xs, ys = [math.log(s) for s in sizes], [math.log(p) for p in peaks]
    x0, y0 = sum(xs) / len(xs), sum(ys) / len(ys)
    rise = sum((x - x0) * (y - y0) for x, y in zip(xs, ys, strict=True))
    return rise / sum((x - x0) ** 2 for x in xs)
