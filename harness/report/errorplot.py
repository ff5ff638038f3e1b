"""The error of each position over its bound, on a logarithmic scale; 1 is the bound.

Only geometry is made here; the template turns it into SVG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.numbers import number, plural

WIDTH, HEIGHT = 640, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 14, 18  # px around the plotted area
_FLOOR = 1e-3  # what is further below the bound is all the same to the reader
_CEILING = 1e9  # and so is what is further above it; NaN and infinity are drawn here too
_BINS = 300  # past so many positions the worst of neighbours is drawn
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Plot:
    """dots and wedges: outlines of the points within and over the bound.

    rules: (y, text) of the horizontal lines; turns: (x, text) where the window is full, and full
    again; ticks: (x, text) of the positions.
    """

    label: str
    bound: float
    dots: str
    wedges: str
    rules: list[tuple[float, str]]
    turns: list[tuple[float, str]]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class _Scale:
    """From position and decade to px.  n: positions; low, top: the decades drawn."""

    n: int
    low: float
    top: float

    def x(self, position: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (position + 0.5) / self.n, 1)

    def y(self, decade: float) -> float:
        share = (self.top - decade) / (self.top - self.low)
        return round(TOP + (HEIGHT - TOP - BOTTOM) * share, 1)


def plot(ratios: Sequence[float], window: int | None = None) -> Plot:
    """The plot of one ratio of error to bound per position; at least one."""
    top = max(1, *(math.ceil(math.log10(_clip(r))) for r in ratios)) + 0.2
    scale = _Scale(len(ratios), math.log10(_FLOOR), top)
    dots, wedges = _points(ratios, scale)
    every = max(1, round((scale.top - scale.low) / 5))  # some five rules
    decades = range(math.ceil(scale.low), math.floor(scale.top) + 1)
    return Plot(
        label=_label(ratios),
        bound=scale.y(0),
        dots=dots,
        wedges=wedges,
        rules=[(scale.y(d), _power(d)) for d in decades if d % every == 0],
        turns=_turns(window, scale),
        ticks=[(scale.x(p), str(p)) for p in range(0, scale.n, _tick(scale.n))],
    )


def _points(ratios: Sequence[float], scale: _Scale) -> tuple[str, str]:
    """Outlines of the dots and of the wedges."""
    dots, wedges = [], []
    step = math.ceil(scale.n / _BINS)
    for start in range(0, scale.n, step):
        worst = max(range(start, min(start + step, scale.n)), key=lambda p: _clip(ratios[p]))
        x, y = scale.x(worst), scale.y(math.log10(_clip(ratios[worst])))
        if ratios[worst] <= 1:
            dots.append(f"M{x:g} {y:g}h0")
        else:  # NaN is over the bound as well
            wedges.append(f"M{x - 3:g} {y + 3:g}h6l-3-6z")
    return "".join(dots), "".join(wedges)


def _clip(ratio: float) -> float:
    return _CEILING if math.isnan(ratio) else min(max(ratio, _FLOOR), _CEILING)


def _tick(n: int) -> int:
    """Positions from one tick to the next: at most some sixteen ticks."""
    return next(step for step in (1, 2, 4, 8, 16, 32, 64, 10**3, 10**4, 10**9) if n / step <= 16)


def _turns(window: int | None, scale: _Scale) -> list[tuple[float, str]]:
    """Multiples of the window, as long as they are few enough to read."""
    if not window or window == 1 or scale.n / window > 12:
        return []
    multiples = range(1, (scale.n - 1) // window + 1)
    return [(scale.x(k * window - 0.5), f"{k}W" if k > 1 else "W") for k in multiples]


def _power(decade: int) -> str:
    return "1" if decade == 0 else f"10{str(decade).translate(_SUPERSCRIPT)}"


def _label(ratios: Sequence[float]) -> str:
    over = [p for p, r in enumerate(ratios) if not r <= 1]
    if not over:
        return f"Error over bound: all {len(ratios)} positions are within the bound."
    worst = max(over, key=lambda p: _clip(ratios[p]))
    return (
        f"Error over bound: {plural(len(over), 'position')} of {len(ratios)} over the bound, the "
        f"first {over[0]}, the worst {worst} by {number(ratios[worst])} bounds."
    )
