"""Checks and planted defects."""

from __future__ import annotations

import ast
import csv
import json
from pathlib import Path

from page_parts.source import DOCS, ROOT, parse, table

KILLS = DOCS / "kills.csv"


def check_names() -> tuple[str, ...]:
    """The checks, in the order of the report."""
    from harness.results.finding import NAMES

    return NAMES


def checks() -> str:
    """When each check holds, and for which bodies it is planned."""
    from harness.results.check_info import CHECK_INFO

    rows = [[f"`{info.name}`", info.holds, ", ".join(info.bodies)] for info in CHECK_INFO]
    return table(["check", "holds when", "subjects"], rows)


def kills() -> dict[str, list[str]]:
    """The checks that catch each planted defect, as `harness kills` last found."""
    with KILLS.open(encoding="utf-8", newline="") as lines:
        return {row["defect"]: row["caught_by"].split() for row in csv.DictReader(lines)}


#: Modules of defects that are not defects of subjects.
_OF_OTHERS = frozenset({"routing.py", "router_calls.py", "sliced_q.py"})


def defects() -> dict[str, str]:
    """What each planted defect does: the docstrings of the classes in `harness.defects`."""
    return {
        node.name: " ".join((ast.get_docstring(node) or "").split())
        for path in sorted((ROOT / "harness" / "defects").glob("*.py"))
        if path.name not in _OF_OTHERS
        for node in parse(path).body
        if isinstance(node, ast.ClassDef)
    }


def only(check: str) -> str:
    """The planted defects that no other check catches."""
    caught, what = kills(), defects()
    rows = [[f"`{name}`", what[name]] for name in caught if caught[name] == [check]]
    seen = sum(check in by for by in caught.values())
    head = f"`{check}` catches {seen} of {len(caught)} planted defects"
    if not rows:
        return f"{head}. Each of them is caught by another check as well.\n"
    return f"{head}. These no other check catches:\n\n{table(['defect', 'what it does'], rows)}"


def kill_table() -> str:
    """Every planted defect beside the checks that catch it."""
    caught, what = kills(), defects()
    rows = [[f"`{name}`", what[name], ", ".join(by)] for name, by in caught.items()]
    return table(["defect", "what it does", "caught by"], rows)


def take_over(path: Path) -> None:
    """Write `kills.csv` from a kill table of `harness kills`.

    Left out: defects that are no subjects' (of the router, of a graph pass), since what judges
    them is no check.
    """
    lines = ["defect,caught_by\n"]
    for row in json.loads(path.read_text(encoding="utf-8")):
        caught_by = [check for check, *_ in row["checks"]]
        if set(caught_by) <= set(check_names()):
            lines.append(f"{row['name']},{' '.join(caught_by)}\n")
    KILLS.write_text("".join(lines), encoding="utf-8")
