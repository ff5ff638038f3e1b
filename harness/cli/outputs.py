"""What `harness check` writes beside its table: the verdict as JUnit XML, and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.common import Misuse, require_writable

if TYPE_CHECKING:
    from harness.results.record import Record


def require_places(junit: Path | None, html: Path | None) -> None:
    """Raise Misuse if one of the files could not be written, before minutes of checks."""
    require_writable(junit, "--junit")
    require_writable(html, "--html")
    if html is not None and html.suffix != ".html":
        raise Misuse(f"--html: must end in .html, got {str(html)!r}")


def write(records: Sequence[Record], junit: Path | None, html: Path | None) -> None:
    """Write the records with their verdict to the files that are asked for.

    Raises OSError, which names the file.
    """
    if junit is None and html is None:
        return
    from harness.gate.baselines import Baselines
    from harness.gate.verdict import judge
    from harness.report import html as page
    from harness.report import junit as xml
    from harness.results import origin
    from harness.results.finding import RED
    from harness.results.folder import RunInfo
    from harness.results.record import to_frame
    from harness.results.recorder import new_run_id

    run = RunInfo(new_run_id(), exit_status=int(any(r.status in RED for r in records)))
    origin.note(run)
    frame = to_frame(records)
    verdict = judge(frame, Baselines(), [], run)
    if junit is not None:
        xml.write(frame, verdict, junit)
    if html is not None:
        page.build(frame, verdict, html, run=run)
