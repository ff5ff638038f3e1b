"""Where a noisy series takes a step: a stated rule, without a model of the noise.

Integers need no rule: any change is a step.  Times do: a night is slow for reasons that are not
the code's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

#: Nights on either side that a step must hold for.
HOLDS = 5
#: A step is larger than this many of the noise's standard deviations, and than this part of what
#: was before: below that nobody would look for a cause.
DEVIATIONS = 5.0
PART = 0.1

_MAD_TO_SIGMA = 1.4826  # of a normal distribution


@dataclass(frozen=True)
class Step:
    """index: the first value behind the step; before, after: medians of the two sides."""

    index: int
    before: float
    after: float

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before if self.before else float("inf")


def last_step(values: Sequence[float]) -> Step | None:
    """The last step of a series, None where it has none.

    The series is cut in two where the absolute deviations from the medians of both sides are
    least.  The cut is a step if both sides are `HOLDS` long and their medians are further apart
    than `DEVIATIONS` of the noise and than `PART` of the former.  Behind a step the rest is
    searched again, so that of several the last is given.  The noise is that of the differences
    from night to night (their median, so that steps and single slow nights do not count).
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
    """Standard deviation of one night, from the differences of neighbours."""
    differences = [abs(b - a) for a, b in pairwise(values)]
    return _MAD_TO_SIGMA * median(differences) / 2**0.5 if differences else 0.0


def _deviation(values: Sequence[float]) -> float:
    middle = median(values)
    return sum(abs(v - middle) for v in values)
