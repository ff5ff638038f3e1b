"""KV bytes of the published models, by context and runtime, and the errors of estimators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.estimate import table

_MIB = 2**20


@dataclass(frozen=True)
class Cell:
    """One figure.  nbytes: None without one.  shown: in MiB.  error: an estimator's, in percent."""

    nbytes: int | None
    shown: str
    error: str
    title: str


@dataclass(frozen=True)
class Column:
    """A runtime or estimator.  evidence: how its figures are known."""

    name: str
    evidence: str


@dataclass(frozen=True)
class Section:
    """The table for one context: its columns, and the cells of each model."""

    context: int
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def sections(contexts: Sequence[int] = table.CONTEXTS) -> list[Section]:
    """One table per context, with every published model."""
    lines = list(table.published_lines(contexts))
    named: dict[str, list[table.Row]] = {}
    for line in lines:
        named.setdefault(line.row.name, []).append(line.row)
    # A runtime whose figures need an option that is not given would be an empty column.
    columns = tuple(
        Column(name, rows[0].evidence)
        for name, rows in named.items()
        if rows[0].evidence == table.PEER or any(row.nbytes is not None for row in rows)
    )
    return [
        Section(context, columns, tuple(_rows(lines, context, columns))) for context in contexts
    ]


def _rows(
    lines: Sequence[table.Line], context: int, columns: Sequence[Column]
) -> Iterator[tuple[str, tuple[Cell, ...]]]:
    models: dict[str, dict[str, table.Row]] = {}
    for line in lines:
        if line.context == context:
            models.setdefault(line.geometry.name, {})[line.row.name] = line.row
    for model, rows in models.items():
        yield model, tuple(_cell(rows[column.name]) for column in columns)


def _cell(row: table.Row) -> Cell:
    if row.nbytes is None:
        return Cell(None, "", "", row.note)
    error = "" if row.error is None else f"{row.error:+.0%}"
    return Cell(row.nbytes, f"{row.nbytes / _MIB:,.1f}", error, f"{row.nbytes:,}")
