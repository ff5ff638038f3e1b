"""Says how far a run is, and remembers for the next one how long each check took and what broke."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from harness.results.finding import RED, Status
from harness.results.record import Record
from harness.run import order
from harness.run.order import Estimate

#: Seconds between two lines.
EVERY = 15.0


class Progress:
    """Of one session, in the process that writes the results."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._last = order.read(config)
        self._estimate: Estimate | None = None

    def begin(self, items: Iterable[str]) -> None:
        """The items that are to run are known."""
        if self._estimate is None:
            self._estimate = Estimate(items, self._last)

    def saw(self, record: Record) -> None:
        """Note a record, and say from time to time how far the run is."""
        if self._estimate is None:
            return
        self._note(record)
        self._estimate.done(record.item)
        reporter = self._config.pluginmanager.getplugin("terminalreporter")
        if reporter is None or self._config.get_verbosity() < 0:
            return
        if line := self._estimate.line(EVERY):
            reporter.ensure_newline()
            reporter.write_line(line)

    def end(self) -> None:
        """Remember what was seen, if anything ran."""
        if self._estimate is not None:
            order.write(self._config, self._last)

    def _note(self, record: Record) -> None:
        if record.seconds is not None:
            self._last.seconds[record.item] = record.seconds
        if Status(record.status) in RED:
            self._last.broken.add(record.item)
        else:
            self._last.broken.discard(record.item)
