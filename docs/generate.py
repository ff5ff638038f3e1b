"""Writes the generated parts of the documentation: ``python docs/generate.py [--check]``.

A generated part of a page stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.  Each
is made from the code that it describes, without PyTorch and without the packages under test, so
that it can be made, and checked, anywhere.

``--check`` writes nothing and ends with status 1 where a page is out of date.  ``--kills FILE``
takes over the kill table that `harness kills` wrote (``reports/latest/kills.json``).  ``--outputs``
runs the examples again and takes over what they print.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

from page_parts import checks, house, outputs, results, subjects
from page_parts.source import DOCS, ROOT

PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))

#: Parts that are what a command of `outputs.OUTPUTS` prints.
OUTPUT = "output of "

_PART = re.compile(r"(<!-- generated: (?P<name>[^\n]+?) -->\n)(?P<body>.*?)(<!-- end -->)", re.S)

MAKERS: dict[str, Callable[[str], str]] = {
    "checks": lambda _: checks.checks(),
    "subjects": lambda _: subjects.subject_table(),
    "subjects in detail": lambda _: subjects.subject_details(),
    "kill table": lambda _: checks.kill_table(),
    "statuses": lambda _: results.statuses(),
    "baseline columns": lambda _: results.baseline_columns(),
    "models": lambda _: house.models(),
    "rooms": lambda _: house.rooms(),
    "routing reasons": lambda _: house.reasons(),
    "commands": lambda _: house.commands(),
    "optional members": subjects.optional_members,
    "example": lambda _: f"\n```python\n{outputs.EXAMPLE.read_text('utf-8')}```\n\n",
    **{f"fields of {k}": results.fields(k) for k in ("Record", "RunInfo", "Verdict")},
    **{f"only {name}": lambda _, name=name: checks.only(name) for name in checks.check_names()},
}


def generate(text: str) -> str:
    """A page with its generated parts made anew.  Raises KeyError for a part that has no maker."""

    def made(match: re.Match[str]) -> str:
        if match["name"].startswith(OUTPUT):
            return match[0]
        return f"{match[1]}{MAKERS[match['name']](match['body'])}{match[4]}"

    return _PART.sub(made, text)


def shown(text: str) -> dict[str, str]:
    """The outputs that a page shows, by name."""
    return {
        match["name"].removeprefix(OUTPUT): match["body"].strip().strip("`").strip("\n") + "\n"
        for match in _PART.finditer(text)
        if match["name"].startswith(OUTPUT)
    }


def write_outputs(text: str) -> str:
    """A page with the outputs that it shows made anew."""

    def made(match: re.Match[str]) -> str:
        if not match["name"].startswith(OUTPUT):
            return match[0]
        said = outputs.output(match["name"].removeprefix(OUTPUT))
        return f"{match[1]}\n```\n{said}```\n\n{match[4]}"

    return _PART.sub(made, text)


def main() -> int:
    """Write, or check, every page; the exit status."""
    parser = argparse.ArgumentParser(description="Write the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if out of date")
    parser.add_argument("--outputs", action="store_true", help="run the examples again, too")
    parser.add_argument("--kills", type=Path, metavar="FILE", help="take over a kill table")
    given = parser.parse_args()
    if given.kills:
        checks.take_over(given.kills)
    stale = []
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = generate(write_outputs(before) if given.outputs else before)
        if after != before:
            stale.append(path.relative_to(ROOT))
            if not given.check:
                path.write_text(after, encoding="utf-8")
    for path in stale:
        print(f"{path}: {'out of date' if given.check else 'written'}")
    return int(given.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
