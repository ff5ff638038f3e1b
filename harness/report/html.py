"""The report as one HTML file that opens offline: styles, script and drawings are inside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from harness.reference.tolerance import SEPARATION
from harness.report import (
    blunt,
    contexts,
    errorplot,
    failures,
    headlines,
    kills,
    kv,
    matrix,
    tables,
    visible,
)
from harness.report import status as looks
from harness.results import text
from harness.results.files import write_atomically
from harness.results.finding import INTEGERS, RED

if TYPE_CHECKING:
    import pandas as pd

    from harness.gate.verdict import Verdict
    from harness.report.past import Past
    from harness.results.folder import RunInfo

_DRAWN = 20  # the most groups of failures with drawings; the cases of the rest are listed
_LISTED = 8  # lines under the verdict


def build(
    frame: pd.DataFrame,
    verdict: Verdict,
    out: Path,
    past: Past | None = None,
    run: RunInfo | None = None,
    unread: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write the report on a completed frame and its verdict; return the path of the file.

    out: a folder, where it becomes ``index.html``, or the name of an .html file.  past: what a
    history says about this run.  run: adds what only the run itself knows about the machine.
    unread: what of the history cannot be read, and why.  A kill table is shown if its file is next
    to the page.  Raises ValueError if the verdict's counts
    are not those of the frame, since nobody would notice that a page mixes two runs.
    """
    counts = Counter(map(str, frame["status"]))
    if +Counter(verdict.counts) != counts:
        raise ValueError(
            "verdict and frame are from different runs: "
            f"the verdict counts {dict(verdict.counts)}, the frame {dict(counts)}"
        )
    path = out if out.suffix == ".html" else out / "index.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = {"past": past, "unread": unread, "kills": kills.read(path.parent)}
    template = _environment().get_template("template.html.j2")
    page = template.render(
        _page(frame, counts, verdict, run) | beside, blunt=blunt.read(path.parent)
    )
    write_atomically(path, text.escaped(page, keep="\n\t"))
    return path


def _page(
    frame: pd.DataFrame, counts: Counter[str], verdict: Verdict, run: RunInfo | None
) -> dict[str, Any]:
    """Everything that the template shows."""
    drawings = failures.Drawings()
    groups = failures.broken(verdict, drawings, _DRAWN)
    known = failures.known(frame, verdict, drawings)
    grid = matrix.tables(frame)
    _link(grid, groups, known)
    return {
        "verdict": verdict,
        "arithmetic": tables.arithmetic(counts),
        "breadth": tables.breadth(frame),
        "groups": groups,
        "drawn": any(g.example and g.example.drawing for g in groups),
        "listed": _LISTED,
        "integers": INTEGERS,
        "drifts": tables.drifts(verdict.drift),
        "known": known,
        "matrix": grid,
        "unloaded": matrix.unloaded(frame),
        "margins": tables.margins(frame),
        "separation": SEPARATION,
        "kv": kv.sections(),
        "charts": contexts.charts(),
        "headlines": headlines.headlines(),
        "slowest": tables.slowest(frame),
        "seconds": float(frame["seconds"].sum()),
        "environment": tables.environment(frame, run),
        "built": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def _link(
    grid: Sequence[matrix.Table],
    groups: Sequence[failures.Group],
    known: Sequence[failures.Known],
) -> None:
    """Link red and known cells to their explanation, and the other cells to their cases."""
    explained = {r.item: group.anchor for group in groups for r in group.records}
    explained |= {r.item: entry.anchor for entry in known for r in entry.records}
    for cell in (c for table in grid for line in table.lines.values() for c in line.cells.values()):
        led = (r for r in cell.records if r.status == cell.lead)
        cell.target = next((explained[r.item] for r in led if r.item in explained), cell.anchor)


def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("harness.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    env.filters |= {
        "number": text.number,
        "px": "{:g}".format,
        "duration": text.duration,
        "plural": text.plural,
        "breakable": _breakable,
        "words": _words,
        "clip": text.cut,
        "ordered": looks.ordered,
    }
    env.globals |= {
        "LOOKS": looks.LOOKS,
        "RED": {str(s) for s in RED},
        "look": looks.look,
        "rank": looks.rank,
        "CELL": visible.CELL,
        "LETTERS": visible.LETTERS,
        "plot": errorplot,
        "chart": contexts,
        "style": _asset("style.css"),
        "script": _asset("script.js"),
    }
    return env


def _asset(name: str) -> Markup:
    """A file of this package, unescaped: it is trusted, and has no closing tag."""
    return Markup(resources.files("harness.report").joinpath(name).read_text(encoding="utf-8"))


def _breakable(name: str) -> Markup:
    """A name that may be broken into lines after its dots and colons."""
    return escape(name).replace(".", Markup(".<wbr>")).replace(":", Markup(":<wbr>"))


def _words(command: str) -> Markup:
    """A command whose options are not broken: "-" and "-case" would look like two words."""
    words = command.split(" ")
    kept = (Markup("<span>{}</span>").format(w) if w.startswith("--") else escape(w) for w in words)
    return Markup(" ").join(kept)
