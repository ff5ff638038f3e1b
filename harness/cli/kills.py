"""`harness kills`: plant every defect, and tell which check catches it."""

from __future__ import annotations

import typer

from harness.cli.common import BROKEN, RESULTS, Results


def kills(out: Results = RESULTS) -> None:
    """Plant every defect, and keep the table of what catches it for the report."""
    from harness.report import kills as table

    rows = []
    for row in table.run():
        rows.append(row)
        caught = ", ".join(check for check, _, _ in row.checks) or "nothing"
        typer.echo(f"{row.name}: caught by {caught}")
    typer.echo(f"{sum(bool(r.checks) for r in rows)} of {len(rows)}; {table.write(rows, out)}")
    raise typer.Exit(0 if all(row.checks for row in rows) else BROKEN)
