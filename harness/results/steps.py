"""Where a noisy series shifts: an explicit rule, without a model of the noise.

Integers need no rule, since any change counts.  Times do: a night can be slow for reasons that
have nothing to do with the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

#: A step needs at least this many nights on either side.
HOLDS = 5
#: A step is larger than this many standard deviations of the noise, and than this fraction of the
#: value before it: nobody would look for the cause of a smaller one.
DEVIATIONS = 5.0
PART = 0.1

_MAD_TO_SIGMA = 1.4826  # for a normal distribution


@dataclass(frozen=True)
class Step:
    """index: the first value after the step.  before, after: medians of the two sides."""

    index: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """`after` divided by `before`."""
        return self.after / self.before if self.before else float("inf")


def last_step(values: Sequence[float]) -> Step | None:
    """The last step of a series; None if it has none.

    The series is cut in two where the sum of absolute deviations from the medians of both sides
    is least, with at least `HOLDS` values on each side.  The cut is a step if the medians differ
    by more than `DEVIATIONS` standard deviations of the noise and by more than `PART` of the
    median before it.  The values after a step are searched again, so that the last of several
    steps is returned.  The noise is estimated from the differences from night to night: their
    median, so that steps and single slow nights do not count.
    """
    noise = _noise(values)
    found: Step | None = None
    start = 0
    while True:
        step = _only_step(values[start:], noise)
        if step is None:
            return found
        found = Step(start + step.index, step.before, step.after)
        start += step.index


def _only_step(values: Sequence[float], noise: float) -> Step | None:
    cuts = range(HOLDS, len(values) - HOLDS + 1)
    if not cuts:
        return None
    cut = min(cuts, key=lambda c: _deviation(values[:c]) + _deviation(values[c:]))
    before, after = median(values[:cut]), median(values[cut:])
    apart = abs(after - before)
    return Step(cut, before, after) if apart > max(DEVIATIONS * noise, PART * before) else None


def _noise(values: Sequence[float]) -> float:
    """Standard deviation of one night, from the differences between consecutive nights."""
    differences = [abs(b - a) for a, b in pairwise(values)]
    return _MAD_TO_SIGMA * median(differences) / 2**0.5 if differences else 0.0


def _deviation(values: Sequence[float]) -> float:
    middle = median(values)
    return sum(abs(v - middle) for v in values)
