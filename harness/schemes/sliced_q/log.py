"""What the sliced-Q pass did with each attention op, and why."""

from __future__ import annotations

from dataclasses import dataclass

Dim = int | str


@dataclass(frozen=True)
class SliceDecision:
    """What the pass decided about one attention.

    op: the name of its last op.  place: the function and the blocks that hold it.  form: "fused",
    or "written out" if a frontend has decomposed it.  query: its shape, with the symbol's name for
    an unknown length.  fired: whether it was sliced.  reason: why, or why not.  parts: rows of each
    piece of the query; empty if it was left as it was or is cut at run time.
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
    """Decisions in the order in which they were made."""

    @property
    def fired(self) -> list[SliceDecision]:
        """The decisions to slice."""
        return [d for d in self if d.fired]

    @property
    def skipped(self) -> list[SliceDecision]:
        """The decisions to leave an op as it was."""
        return [d for d in self if not d.fired]

    def __str__(self) -> str:
        return "\n".join(map(str, self)) or "no attention op in the program"
