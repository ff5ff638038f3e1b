"""A plot of the error at each position over its bound, on a log scale; 1 is the bound.

Curves show the errors that neighbouring laws would have: if a subject's errors are those of a
window one key wider, then that is the window it has.

Only geometry is made here; the template turns it into SVG.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from harness.results.text import number, plural

WIDTH, HEIGHT = 640, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 8, 14, 18  # px around the plotted area
_FLOOR = 1e-3  # anything smaller is drawn here: the difference does not matter to the reader
_CEILING = 1e9  # anything larger is drawn here, and so are NaN and infinity
_BINS = 300  # with more positions, only the worst of each bin is drawn
_CURVES = 5  # the most neighbouring laws to draw, those closest to the truth
#: Relative rounding: errors have four digits, those of the neighbouring laws three.
_ROUNDED = 0.5e-3 + 0.5e-2
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Curve:
    """The errors of one wrong law.  worst: in bounds.  same: the subject's errors match it."""

    name: str
    path: str
    worst: float
    same: bool


@dataclass(frozen=True)
class Plot:
    """Geometry of a plot.

    bound: y of the bound.  dots, wedges: outlines of the points within and over the bound.
    curves: those of wrong laws.  rules: (y, text) of the horizontal lines.  turns: (x, text) of
    the multiples of the window.  ticks: (x, text) of the positions.
    """

    label: str
    bound: float
    dots: str
    wedges: str
    curves: list[Curve]
    rules: list[tuple[float, str]]
    turns: list[tuple[float, str]]
    ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class _Scale:
    """Converts positions and decades to px.  n: positions.  low, top: range of decades."""

    n: int
    low: float
    top: float

    def x(self, position: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (position + 0.5) / self.n, 1)

    def y(self, decade: float) -> float:
        share = (self.top - decade) / (self.top - self.low)
        return round(TOP + (HEIGHT - TOP - BOTTOM) * share, 1)


def plot(
    ratios: Sequence[float],
    window: int | None = None,
    neighbours: Mapping[str, Sequence[float]] | None = None,
) -> Plot:
    """The plot of at least one ratio of error to bound, one per position.

    window: marks its multiples.  neighbours: the ratios of wrong laws, by name; any with another
    number of positions is not drawn.
    """
    near = {name: held for name, held in (neighbours or {}).items() if len(held) == len(ratios)}
    drawn = [r for held in (ratios, *near.values()) for r in held]
    top = max(1, *(math.ceil(math.log10(_clip(r))) for r in drawn)) + 0.2
    scale = _Scale(len(ratios), math.log10(_FLOOR), top)
    curves = sorted((_curve(name, near[name], ratios, scale) for name in near), key=_nearest)
    dots, wedges = _points(ratios, scale)
    every = max(1, round((scale.top - scale.low) / 5))  # about five rules
    decades = range(math.ceil(scale.low), math.floor(scale.top) + 1)
    return Plot(
        label=_label(ratios, curves[:_CURVES]),
        bound=scale.y(0),
        dots=dots,
        wedges=wedges,
        curves=curves[:_CURVES],
        rules=[(scale.y(d), _power(d)) for d in decades if d % every == 0],
        turns=_turns(window, scale),
        ticks=[(scale.x(p), str(p)) for p in range(0, scale.n, _tick(scale.n))],
    )


def _points(ratios: Sequence[float], scale: _Scale) -> tuple[str, str]:
    """The outlines of the dots and of the wedges."""
    dots, wedges = [], []
    for worst in _worst(ratios):
        x, y = scale.x(worst), scale.y(math.log10(_clip(ratios[worst])))
        if ratios[worst] <= 1:
            dots.append(f"M{x:g} {y:g}h0")
        else:  # NaN is over the bound as well
            wedges.append(f"M{x - 3:g} {y + 3:g}h6l-3-6z")
    return "".join(dots), "".join(wedges)


def _worst(ratios: Sequence[float]) -> Iterator[int]:
    """The positions to draw: all, or the worst of each bin if there are many."""
    n, step = len(ratios), math.ceil(len(ratios) / _BINS)
    for start in range(0, n, step):
        yield max(range(start, min(start + step, n)), key=lambda p: _clip(ratios[p]))


def _curve(name: str, wrong: Sequence[float], ratios: Sequence[float], scale: _Scale) -> Curve:
    """A line through the positions where the wrong law differs from the law; gaps elsewhere."""
    runs = []
    for shows, run in groupby(_worst(wrong), lambda p: _clip(wrong[p]) > _FLOOR):
        points = [(scale.x(p), scale.y(math.log10(_clip(wrong[p])))) for p in run]
        if shows and len(points) == 1:  # a single point is drawn as a dash
            runs.append(f"M{points[0][0] - 7:.0f} {points[0][1]:.0f}h14")
        elif shows:
            runs.append("M" + " ".join(f"{x:.0f} {y:.0f}" for x, y in points))
    same = all(_equal(r, w) for r, w in zip(ratios, wrong, strict=True))
    return Curve(name, "".join(runs), max(_clip(w) for w in wrong), same)


def _equal(ratio: float, wrong: float) -> bool:
    """True if two errors differ by at most one bound, as errors of the same law do."""
    if not (math.isfinite(ratio) and math.isfinite(wrong)):
        return False
    return abs(ratio - wrong) <= 1 + _ROUNDED * max(ratio, wrong)


def _nearest(curve: Curve) -> tuple[bool, float]:
    """Sort key of curves: those that match come first, then those closest to the truth."""
    return not curve.same, curve.worst


def _clip(ratio: float) -> float:
    return _CEILING if math.isnan(ratio) else min(max(ratio, _FLOOR), _CEILING)


def _tick(n: int) -> int:
    """The distance between ticks, for at most sixteen ticks."""
    return next(step for step in (1, 2, 4, 8, 16, 32, 64, 10**3, 10**4, 10**9) if n / step <= 16)


def _turns(window: int | None, scale: _Scale) -> list[tuple[float, str]]:
    """Multiples of the window, or none if there would be too many to read."""
    if not window or window == 1 or scale.n / window > 12:
        return []
    multiples = range(1, (scale.n - 1) // window + 1)
    return [(scale.x(k * window - 0.5), f"{k}W" if k > 1 else "W") for k in multiples]


def _power(decade: int) -> str:
    return "1" if decade == 0 else f"10{str(decade).translate(_SUPERSCRIPT)}"


def _label(ratios: Sequence[float], curves: Sequence[Curve]) -> str:
    laws = [
        f" {c.name} would be off by up to {number(c.worst)} bounds"
        f"{', and the measured errors match' if c.same else ''}."
        for c in curves
    ]
    return _said(ratios) + "".join(laws)


def _said(ratios: Sequence[float]) -> str:
    over = [p for p, r in enumerate(ratios) if not r <= 1]
    if not over:
        return f"Error over bound: all {len(ratios)} positions are within the bound."
    worst = max(over, key=lambda p: _clip(ratios[p]))
    return (
        f"Error over bound: {plural(len(over), 'position')} of {len(ratios)} over the bound, the "
        f"first {over[0]}, the worst {worst} by {number(ratios[worst])} bounds."
    )
