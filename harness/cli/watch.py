"""What `harness check` shows while it runs, and why it stops before the end."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.cli import signals
from harness.cli.common import say
from harness.results.text import cut

if TYPE_CHECKING:
    from rich.console import Console

    from harness.results.record import Record
    from harness.run.parent import Progress

_SAID_EVERY_S = 5.0
_CLIPPED = 200  # characters of a message


@dataclass
class Outcome:
    """How far the checks came.

    stopped: why the rest did not run; "" if all did.  status: the exit status that this asks for;
    None if the records decide it.
    """

    progress: Progress
    stopped: str = ""
    status: int | None = None
    _began: float = field(default_factory=time.monotonic)

    @property
    def title(self) -> str:
        """Name and version of the subject."""
        return f"{self.progress.subject} {self.progress.version}".strip()

    @property
    def left(self) -> int:
        """The number of planned checks that have no record."""
        return len(self.progress.planned) - len(self.progress.done)

    def count(self, broken: int) -> str:
        """One line: how many are done and broken, and how long the rest takes at this pace."""
        done, total = len(self.progress.done), len(self.progress.planned)
        note = f"{self.title}, {broken} broken" if broken else self.title
        if not done:
            return f"{note}: {done}/{total}"
        rest = (time.monotonic() - self._began) / done * (total - done)
        return f"{note}: {done}/{total}, about {rest:.0f} s left"


def watch(
    target: str,
    selection: dict[str, str],
    timeout: float,
    console: Console,
    max_failures: int | None = None,
) -> Outcome:
    """Run the checks of a target, with a progress bar or, without a terminal, with lines.

    max_failures: stop at this many broken checks.  ^C and SIGTERM stop it too, and what is known
    by then is returned.  Raises RefusedError for a target that cannot be used.
    """
    from rich import progress as bars

    from harness.report import terminal
    from harness.run import parent

    out = Outcome(parent.Progress())
    quiet = not console.is_terminal
    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TimeRemainingColumn(),
    )
    said, bad = time.monotonic(), 0
    with bars.Progress(*columns, console=console, transient=True, disable=quiet) as bar:
        task = bar.add_task(f"loading {target}", total=None)
        try:
            with closing(parent.run(target, selection, timeout)) as stream:
                for out.progress in stream:
                    broken = terminal.broken(out.progress.done)
                    if broken and not bad and out.left:
                        _show_first(bar.console, broken[0], quiet=quiet)
                    bad = len(broken)
                    note = f"{out.title}, {bad} broken" if bad else out.title
                    done, total = len(out.progress.done), len(out.progress.planned)
                    bar.update(task, description=note, completed=done, total=total)
                    if quiet and time.monotonic() - said > _SAID_EVERY_S:
                        said = time.monotonic()
                        say(out.count(bad), err=True)
                    if max_failures is not None and bad >= max_failures and out.left:
                        out.stopped = f"stopped at {bad} broken"
                        break
        except signals.Terminated:
            out.stopped, out.status = "ended by SIGTERM", signals.TERMINATED
        except KeyboardInterrupt:
            out.stopped, out.status = "interrupted", signals.INTERRUPTED
    return out


def _show_first(console: Console, record: Record, *, quiet: bool) -> None:
    """Show the first broken check at once: the rest may take minutes."""
    from rich.text import Text

    text = f"first broken: {record.check} {record.case}: {cut(record.message, _CLIPPED)}"
    if quiet:
        say(text, err=True)  # stdout has the table, and nothing else
    else:
        console.print(Text(text, style="red"), soft_wrap=True)
