"""What the sliced-Q pass did with each attention op, and why."""

from __future__ import annotations

from dataclasses import dataclass

Dim = int | str


@dataclass(frozen=True)
class SliceDecision:
    """One attention op that the pass came by.

    op, place: name of its last op, and the function and blocks that hold it.  form: "fused", or
    "written out" by a frontend.  query: shape, a symbol by its name.  parts: rows of each piece of
    the query; empty where it was left as it was or is cut at run time.  reason: why it was sliced,
    or why not.
    """

    op: str
    place: str
    form: str
    query: tuple[Dim, ...]
    fired: bool
    reason: str
    parts: tuple[int, ...] = ()

    def __str__(self) -> str:
        what = "sliced" if self.fired else "skipped"
        shape = "×".join(map(str, self.query))
        return f"{what} {self.op} ({self.form}) in {self.place}, query {shape}: {self.reason}"


class Log(list[SliceDecision]):
    """Decisions in the order in which they were taken."""

    @property
    def fired(self) -> list[SliceDecision]:
        """Those that sliced."""
        return [d for d in self if d.fired]

    @property
    def skipped(self) -> list[SliceDecision]:
        """Those that left the op as it was."""
        return [d for d in self if not d.fired]

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no attention op in the program"
