"""Numbers and positions as people read them."""

from __future__ import annotations

import math
from collections.abc import Iterable


def number(value: float | None) -> str:
    """Whole numbers in full with their thousands apart, others to three digits; "" for None."""
    if value is None:
        return ""
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def duration(value: float | None) -> str:
    """Seconds, to the digit that matters."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def spans(positions: Iterable[int]) -> str:
    """Positions as ranges: "0–3, 9, 12–15"; "none" for no position."""
    runs: list[list[int]] = []
    for p in sorted(set(positions)):
        if runs and p == runs[-1][1] + 1:
            runs[-1][1] = p
        else:
            runs.append([p, p])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs) or "none"


def plural(n: int, one: str, many: str = "") -> str:
    """ "1 case", "2 cases"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
