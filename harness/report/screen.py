"""The console of the commands: what a subject or a file says is shown, never obeyed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from harness.results.text import escaped

_WIDTH = 140  # without a terminal; rich assumes 80 columns there and folds the ids that people copy


class Screen(Console):
    """A console without markup, on which control characters of a text are shown as escapes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, *given: Any, **options: Any) -> Iterable[Segment]:
        """As in rich, but a text cannot move the cursor, clear the screen or set the title."""
        for segment in super().render(*given, **options):
            if segment.control:
                yield segment
            else:
                yield segment._replace(text=escaped(segment.text, keep="\n"))


def screen() -> Screen:
    """The console; 140 columns wide where there is no terminal."""
    console = Screen()
    return console if console.is_terminal else Screen(width=_WIDTH)
