"""Broken and known failures, grouped so that equal ones are drawn only once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from harness.cases.models import tiny
from harness.report import errorplot, visible
from harness.results import groups
from harness.results.finding import Status
from harness.results.record import rows

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.known import Cause
    from harness.gate.verdict import Verdict
    from harness.results.record import Row


@dataclass
class Example:
    """One record with its drawings; `seen_at` is the anchor of an equal drawing above it."""

    record: Row
    drawing: visible.Drawing | None = None
    plot: errorplot.Plot | None = None
    window: int | None = None
    seen_at: str = ""


@dataclass
class Group:
    """Records of one subject that broke in the same way; the first is shown as the example."""

    anchor: str
    held: groups.Group
    example: Example | None = None

    @property
    def records(self) -> tuple[Row, ...]:
        """Its records."""
        return self.held.records

    @property
    def first(self) -> Row:
        """The record that represents the group."""
        return self.held.first

    @property
    def checks(self) -> str:
        """The checks that broke in this way, as text."""
        return self.held.checks

    @property
    def where(self) -> str:
        """The dtypes, where others break in another way."""
        return self.held.where


@dataclass
class Known:
    """A known failure with an example of each kind of drawing.  entry: its cause, if found."""

    anchor: str
    id: str
    entry: Cause | None
    records: list[Row] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    @property
    def subjects(self) -> str:
        """The subjects that show it, as text."""
        return ", ".join(dict.fromkeys(record.subject for record in self.records))


class Drawings:
    """Makes each drawing only once: a later equal one links to the first."""

    def __init__(self) -> None:
        self._places: dict[Hashable, str] = {}

    def example(self, record: Row, anchor: str) -> Example:
        """The record with the drawings that it has data for; `anchor` is its place on the page."""
        window = _window(record.model)
        out = Example(record, window=window)
        if not record.rows and not record.errors:
            return out
        key = repr((record.rows, record.errors, record.neighbours, window))
        if key in self._places:
            out.seen_at = self._places[key]
            return out
        self._places[key] = anchor
        if record.rows:
            out.drawing = visible.draw(record.rows)
        if record.errors:
            out.plot = errorplot.plot(record.errors, window, record.neighbours)
        return out


def broken(verdict: Verdict, drawings: Drawings, limit: int) -> list[Group]:
    """Groups of the records that turn the gate red.  The first `limit` have drawings."""
    out = [Group(f"g{i}", held) for i, held in enumerate(groups.groups(verdict.broken))]
    for group in out[:limit]:
        group.example = drawings.example(group.first, group.anchor)
    return out


def known(frame: pd.DataFrame, verdict: Verdict, drawings: Drawings) -> list[Known]:
    """Known failures in the verdict's order, with up to two examples each (see `_two`)."""
    entries = {entry.id: entry for entry, _ in verdict.known}
    found: dict[str, list[Row]] = {name: [] for name in entries}
    for row in rows(frame[frame["status"] == Status.KNOWN.value]):
        found.setdefault(row.known, []).append(row)
    out = []
    for i, (name, held) in enumerate(found.items()):
        entry = Known(f"k{i}", name, entries.get(name), held)
        entry.examples = [drawings.example(record, entry.anchor) for record in _two(held)]
        out.append(entry)
    return out


def _two(records: Sequence[Row]) -> list[Row]:
    """The first record with visible sets and the first with errors, or else the first."""
    kinds: tuple[Callable[[Row], object], ...] = (lambda r: r.rows, lambda r: r.errors)
    chosen = [next((r for r in records if has(r)), None) for has in kinds]
    distinct = {id(r): r for r in chosen if r is not None}
    return list(distinct.values()) or list(records[:1])


@lru_cache
def _window(model: str) -> int | None:
    """The window or chunk of a tiny model; None if it has neither or is not a tiny model."""
    try:
        found = tiny(model)
    except ValueError:
        return None
    return found.window or found.chunk
