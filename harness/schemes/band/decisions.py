"""Why calls of attention were routed or passed on, with counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """The reason of a decision; the value is the text that people read."""

    ROUTED = "plain causal band: windowed kernel"
    OFF = "HARNESS_BAND_ROUTING=0"
    TRACED = "traced, transformed or captured: no decision on data"
    FULL = "no sliding window"
    EXTRA = "position bias, soft cap or paged cache"
    DROPOUT = "dropout"
    SHAPES = "shapes that are not grouped self-attention"
    HEAD_DIM = "head_dim above 256"
    DECODE = "one query over a cache"
    CACHED = "chunk of queries over a cache"
    SHORT = "not longer than the window"
    BIDIRECTIONAL = "no mask, and not causal"
    NO_MASK = "no mask: every earlier key is visible"
    NOT_BAND = "mask is not the plain band (padding, packing, another window)"
    NO_KERNEL = "no kernel takes these tensors"


@dataclass(frozen=True)
class Decision:
    """A reason, with its details: the kernel's name if routed, or why no kernel takes the call."""

    reason: Reason
    about: str = ""

    @property
    def routed(self) -> bool:
        return self.reason is Reason.ROUTED


@dataclass
class Decisions:
    """Counts of decisions since the last `clear`."""

    counts: Counter[Decision] = field(default_factory=Counter)

    def add(self, decision: Decision) -> None:
        self.counts[decision] += 1

    def clear(self) -> None:
        self.counts.clear()

    @property
    def routed(self) -> int:
        """Calls that a windowed kernel answered."""
        return sum(n for decision, n in self.counts.items() if decision.routed)

    @property
    def passed_on(self) -> int:
        """Calls that the original answered."""
        return self.counts.total() - self.routed

    def by_reason(self) -> dict[Reason, int]:
        """The number of calls for each reason."""
        out: Counter[Reason] = Counter()
        for decision, n in self.counts.items():
            out[decision.reason] += n
        return dict(out)

    def explain(self) -> str:
        """A text for people: one line for each decision, the most frequent first."""
        lines = [f"{self.routed} calls routed, {self.passed_on} passed on unchanged"]
        for decision, n in self.counts.most_common():
            what = "routed" if decision.routed else "passed on"
            about = f" ({decision.about})" if decision.about else ""
            lines.append(f"{n:8,}  {what}: {decision.reason}{about}")
        return "\n".join(lines)
