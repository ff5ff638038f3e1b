"""How each status looks: its word, its shape and its meaning.

Shape and word carry the meaning; colour only repeats it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from harness.results.finding import RED, SHOWN_FIRST, Status


@dataclass(frozen=True)
class Look:
    """word: its name for people.  verb: the column title in `harness check`, such as "holds".

    path: its shape, an SVG path drawn with a stroke in a box of 16 x 16.
    """

    word: str
    verb: str
    path: str
    meaning: str
    red: bool = False

    @property
    def colour(self) -> str:
        """The colour in a terminal."""
        return "red" if self.red else "green" if self.verb == "holds" else "yellow"


#: By status: word, verb, shape and meaning.
_DRAWN: dict[Status, tuple[str, str, str, str]] = {
    Status.MISSING: (
        "missing",
        "not run",
        "M5.4 5.8a2.6 2.6 0 1 1 3.9 2.3c-.9.5-1.3 1-1.3 2M8 12.9v.2",
        "collected, but no record came back",
    ),
    Status.ERROR: (
        "error",
        "broke",
        "M8 2.6l5.8 10.6H2.2zM8 6.6v3M8 11.4v.2",
        "the subject or the harness raised, hung or died",
    ),
    Status.FAIL: ("fail", "fails", "M4 4l8 8M12 4l-8 8", "the check ran and does not hold"),
    Status.FIXED: (
        "fixed",
        "holds now",
        "M8 13V4M4.2 7.4L8 3.6l3.8 3.8",
        "a known failure that passed: its entry must be removed",
    ),
    Status.KNOWN: (
        "known",
        "known",
        "M8 2.4L13.6 8 8 13.6 2.4 8z",
        "a failure that is filed as a known failure",
    ),
    Status.PASS: ("pass", "holds", "M3 8.6l3.3 3.3L13 4.8", "the check holds"),
    Status.NOT_INSTALLED: (
        "not installed",
        "not installed",
        "M8 3a5 5 0 1 0 .01 0zM4.6 11.4l6.8-6.8",
        "the subject's package is not installed: nothing ran",
    ),
    Status.NOT_CLAIMED: (
        "not claimed",
        "not claimed",
        "M4 8h8",
        "the subject does not claim to support the case",
    ),
}

#: Every status, in the order in which counts are shown and the status of a cell is chosen.
LOOKS: dict[str, Look] = {
    status.value: Look(*_DRAWN[status], red=status in RED) for status in SHOWN_FIRST
}


def look(status: str) -> Look:
    """How a status looks.  Raises ValueError for an unknown status."""
    if status not in LOOKS:
        raise ValueError(f"unknown status {status!r}; known: {', '.join(LOOKS)}")
    return LOOKS[status]


def rank(status: str) -> int:
    """The place of a status in `LOOKS`; 0 is the worst.  Raises ValueError."""
    look(status)
    return list(LOOKS).index(status)


def lead(counts: Mapping[str, int]) -> str:
    """The status that a cell shows: the worst of the checks that ran.

    If nothing ran, it is "not-installed" or "not-claimed", so that it never looks like a pass.
    """
    return min((status for status, n in counts.items() if n), key=rank)


def ordered(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """(status, count) of every status that occurs, the worst first."""
    return sorted(((s, n) for s, n in counts.items() if n), key=lambda item: rank(item[0]))
