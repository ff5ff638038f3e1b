"""`harness kills`: plants every defect, and shows which checks catch it."""

from __future__ import annotations

from pathlib import Path

import typer

from harness.cli.common import BROKEN, RESULTS, Results, say


def kills(out: Results = RESULTS) -> None:
    """Plant every defect, and keep a table of the checks that catch it for the report."""
    from harness.defects.batteries import absent
    from harness.report import kills as table

    for kind, package in absent().items():
        say(f"{kind}: not planted, {package} is not installed")
    rows = []
    for row in table.run():
        rows.append(row)
        caught = ", ".join(check for check, _, _ in row.checks) or "nothing"
        missed = f"; MISSED by {', '.join(row.missed_by)}" if row.missed_by else ""
        expected = ", ".join(row.expected) or "any check"
        say(f"{row.name}: caught by {caught} (expected: {expected}){missed}")
    caught_all = sum(row.is_caught for row in rows)
    say(f"caught {caught_all} of {len(rows)}; {table.write(rows, out)}")
    proved = _prove_checks(out)
    raise typer.Exit(0 if caught_all == len(rows) and proved else BROKEN)


def _prove_checks(out: Path) -> bool:
    """Plant blunt mistakes, and mistakes under one condition; True if no check lets one pass."""
    from harness.report import blunt

    lines = []
    for line in blunt.run():
        lines.append(line)
        if line.vacuous:
            say(f"{line.body}: {line.check} lets pass what {line.mistake}")
    vacuous = sum(line.vacuous for line in lines)
    say(f"vacuous {vacuous} of {len(lines)} cells; {blunt.write(lines, out)}")
    passed = list(blunt.missed())
    for text in passed:
        say(f"not met: {text}")
    return not vacuous and not passed
