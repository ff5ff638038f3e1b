"""The order of a run, and how long it still takes, from what the last run here was like.

What broke last comes first, then the subjects that were quick.  The cases of a subject stay
together, since they share references and programs, and so do the subjects of a package, so that one
worker imports it.  The memory is pytest's cache folder: it is of
one checkout, and losing it costs nothing but the order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

_KEY = "harness/last"
_Item = TypeVar("_Item")


@dataclass
class Last:
    """seconds: of each item when it last ran here.  broken: the items that broke the last time."""

    seconds: dict[str, float] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)

    def usual(self) -> float:
        """Seconds of an item that never ran here: the mean of the others, 1 without any."""
        return sum(self.seconds.values()) / len(self.seconds) if self.seconds else 1.0


def read(config: pytest.Config) -> Last:
    """What is known of the last runs; nothing where pytest's cache is off or damaged."""
    cache = getattr(config, "cache", None)
    held: Any = None if cache is None else cache.get(_KEY, None)
    if not isinstance(held, dict):
        return Last()
    seconds, broken = held.get("seconds"), held.get("broken")
    return Last(
        {k: float(v) for k, v in seconds.items() if isinstance(v, int | float)}
        if isinstance(seconds, dict)
        else {},
        set(filter(lambda name: isinstance(name, str), broken))
        if isinstance(broken, list)
        else set(),
    )


def write(config: pytest.Config, last: Last) -> None:
    """Keep what was learnt for the next run."""
    cache = getattr(config, "cache", None)
    if cache is not None:
        seconds = {name: round(took, 4) for name, took in last.seconds.items()}
        cache.set(_KEY, {"seconds": seconds, "broken": sorted(last.broken)})


def ordered(
    items: Sequence[_Item],
    name: Callable[[_Item], str],
    groups: Callable[[_Item], tuple[str, ...]],
    last: Last,
) -> list[_Item]:
    """Items that broke last, then the others by group, the quickest group first.

    groups: of an item, the wide one first: its package and its subject.  Groups that took equally
    long, as all do without a memory, keep the order in which they come.
    """
    times: dict[tuple[str, ...], float] = {}
    came: dict[tuple[str, ...], int] = {}
    for item in items:
        for depth in range(1, len(groups(item)) + 1):
            group = groups(item)[:depth]
            times[group] = times.get(group, 0.0) + last.seconds.get(name(item), 0.0)
            came.setdefault(group, len(came))

    def rank(item: _Item) -> tuple[object, ...]:
        held = [groups(item)[:depth] for depth in range(1, len(groups(item)) + 1)]
        return (name(item) not in last.broken, *((times[group], came[group]) for group in held))

    return sorted(items, key=rank)


class Estimate:
    """How much of a run is done, and how long the rest takes at the speed so far."""

    def __init__(
        self, items: Iterable[str], last: Last, clock: Callable[[], float] = time.monotonic
    ) -> None:
        usual = last.usual()
        self._left: Mapping[str, float] = {i: last.seconds.get(i, usual) for i in items}
        self._total = len(self._left)
        self._open = dict(self._left)
        self._clock = clock
        self._began = self._told = clock()

    def done(self, item: str) -> None:
        """An item has ended."""
        self._open.pop(item, None)

    def line(self, every: float) -> str:
        """One line, "" if the last one is less than `every` seconds old."""
        now, ended = self._clock(), self._total - len(self._open)
        if now - self._told < every or not ended or not self._open:
            return ""
        self._told = now
        open_seconds = sum(self._open.values())
        weight = sum(self._left.values()) - open_seconds
        left = (now - self._began) * open_seconds / weight if weight else 0.0
        return f"{ended:,} of {self._total:,} checks, about {_spelt(left)} left"


def _spelt(seconds: float) -> str:
    """ "40 s", "3 min": nobody needs more digits of a guess."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
