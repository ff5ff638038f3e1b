"""How tokens are fed: prefill, chunks, decode, wraps, reset, rewind.

Lengths cross the boundaries where caches break (W-1, W, W+1, 2W, a wrap inside a chunk, a last
chunk that is not full), and every schedule states how many wraps it reaches.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import cycle


@dataclass(frozen=True)
class Feed:
    """Feed the next n tokens in one call."""

    n: int


@dataclass(frozen=True)
class Reset:
    """Forget everything and start again at position 0."""


@dataclass(frozen=True)
class Rewind:
    """Forget every position from `length` on."""

    length: int


@dataclass(frozen=True)
class Copy:
    """Go on with a deep copy, while the original is fed something else."""


Step = Feed | Reset | Rewind | Copy


@dataclass(frozen=True)
class Schedule:
    """A named list of steps.

    wraps: how many times a ring of 2 * window slots after the sink's is overwritten completely, as
    the schedule claims; `check_reach` verifies it.
    """

    name: str
    steps: tuple[Step, ...]
    wraps: int = 0

    @cached_property
    def length(self) -> int:
        """Positions held at the end."""
        return self._lengths()[-1]

    @cached_property
    def max_context(self) -> int:
        """The most positions that are ever held."""
        return max(self._lengths())

    @cached_property
    def max_chunk(self) -> int:
        """Tokens of the longest feed."""
        return max(step.n for step in self.steps if isinstance(step, Feed))

    @property
    def plain(self) -> bool:
        """True if the schedule neither resets nor rewinds."""
        return not (self.has(Reset) or self.has(Rewind))

    def has(self, kind: type[Reset] | type[Rewind] | type[Copy]) -> bool:
        """True if the schedule holds a step of this kind."""
        return any(isinstance(step, kind) for step in self.steps)

    def spans(self) -> list[tuple[int, int]]:
        """(start, end) of every feed, in order."""
        out, at = [], 0
        for step in self.steps:
            match step:
                case Feed(n):
                    out.append((at, at + n))
                    at += n
                case Reset():
                    at = 0
                case Rewind(length):
                    at = length
                case Copy():
                    pass
        return out

    def check_reach(self, window: int, sink: int = 0) -> None:
        """Raise ValueError if the schedule is too short for the wraps that it claims."""
        need = sink + self.wraps * 2 * window
        if self.max_context <= need and self.wraps:
            raise ValueError(
                f"schedule {self.name} claims {self.wraps} wraps of 2 x {window} slots after "
                f"{sink} sinks, which takes more than {need} positions; it feeds "
                f"{self.max_context}"
            )

    def _lengths(self) -> list[int]:
        lengths, at = [0], 0
        for step in self.steps:
            match step:
                case Feed(n):
                    at += n
                case Reset():
                    at = 0
                case Rewind(length):
                    if not 0 <= length <= at:
                        raise ValueError(f"rewind to {length} of {at} positions")
                    at = length
                case Copy():
                    pass
            lengths.append(at)
        return lengths


STEPS = "steps-"


def of_steps(steps: Iterable[Step]) -> Schedule:
    """The schedule of these steps, with a name that spells them out.

    "steps-5.x.9.r7.c.1" feeds 5 tokens, resets, feeds 9, rewinds to 7, is copied and feeds 1.
    Raises ValueError for a rewind to more positions than are held.
    """
    steps = tuple(steps)
    schedule = Schedule(STEPS + ".".join(_word(step) for step in steps), steps)
    schedule._lengths()
    return schedule


def read_steps(name: str) -> Schedule:
    """The schedule that `of_steps` gives this name.  Raises ValueError naming a wrong word."""
    return of_steps(_step(word) for word in name.removeprefix(STEPS).split("."))


def _word(step: Step) -> str:
    match step:
        case Feed(n):
            return str(n)
        case Rewind(length):
            return f"r{length}"
        case Reset():
            return "x"
        case Copy():
            return "c"


def _step(word: str) -> Step:
    if word == "x":
        return Reset()
    if word == "c":
        return Copy()
    if word[:1] == "r" and word[1:].isdecimal():
        return Rewind(int(word[1:]))
    if word.isdecimal() and int(word) > 0:
        return Feed(int(word))
    raise ValueError(
        f"a step must be a number of tokens, x (reset), rN (rewind to N) or c (copy), got {word!r}"
    )


def chunks(total: int, sizes: Iterable[int]) -> tuple[Feed, ...]:
    """`total` tokens in feeds of the given sizes, in turn; the last feed takes what is left."""
    out, left = [], total
    for size in cycle(sizes):
        if left <= 0:
            break
        out.append(Feed(min(size, left)))
        left -= size
    return tuple(out)


def standard(window: int, sink: int = 0) -> list[Schedule]:
    """The schedules that every model is run through, for its window and sink.

    For a model without a window, pass any small number: full attention has boundaries too, where
    its chunks end.
    """
    w = window
    past3 = sink + 6 * w + 3  # beyond three wraps of a ring of 2W after the sink
    decode = (1,)
    out = [
        Schedule(f"prefill-{label}", (Feed(n),))
        for label, n in (("w-1", w - 1), ("w", w), ("w+1", w + 1), ("3w+5", 3 * w + 5))
        if n >= 1
    ]
    out.append(Schedule("decode-3wraps", chunks(past3, decode), wraps=3))
    for label, c in (
        ("4", 4),
        ("w-1", w - 1),
        ("w", w),
        ("w+1", w + 1),
        ("w+2", w + 2),
        ("2w", 2 * w),
    ):
        if c >= 1:
            out.append(Schedule(f"chunk-{label}", chunks(past3, (c,)), wraps=3))
    out.append(Schedule("ragged-primes", chunks(past3, (2, 3, 1, 5, 7, 1, 1)), wraps=3))
    out += [
        Schedule(
            "prefill-by-5-then-decode",
            chunks(2 * w + 2, (5,)) + chunks(2 * w + sink + 3, decode),
            wraps=1,
        ),
        Schedule(
            "short-prefill-by-4-then-decode",
            chunks(w - 1, (4,)) + chunks(2 * w + sink + 3, decode),
            wraps=1,
        ),
        Schedule(
            "prefill-then-decode",
            (Feed(3 * w + 5), *chunks(w + 3 + sink, decode)),
            wraps=1,
        ),
    ]
    # A chat: between decode steps, prompts of over two windows and of sizes found nowhere else.
    talk = (3 * w + 5, 1, 1, 1, 1, w, 1, 3 * w + 5, 1, 2 * w - 1, 1, w + 1, 1)
    out.append(Schedule("turns", tuple(Feed(n) for n in talk), wraps=1))
    return out


def resets(window: int, sink: int = 0) -> list[Schedule]:
    """Use, reset, use again: in other chunks, and with fewer tokens than before."""
    w = window
    first = chunks(2 * w + sink + 3, (5,))
    return [
        Schedule("reset-then-chunks", (*first, Reset(), *chunks(3 * w + sink + 2, (3,)))),
        Schedule("reset-then-decode", (*first, Reset(), *chunks(w + sink + 2, (1,)))),
        Schedule(
            "reset-after-3wraps",
            (*chunks(sink + 6 * w + 3, (4,)), Reset(), *chunks(w + 3, (2, 1))),
            wraps=3,
        ),
        Schedule(
            "reset-twice",
            (*first, Reset(), *chunks(w + 3, (3,)), Reset(), *chunks(2 * w + sink, (2, 1))),
        ),
    ]


def rewinds(window: int, sink: int = 0) -> list[Schedule]:
    """Rewinds by a few tokens (speculative decoding), by a window, far back, early, and twice.

    After each come a chunk, decode steps, and enough feeds to overwrite every slot.
    """
    w = window
    tail = (Feed(4), *chunks(w // 2 + 1, (1,)), *chunks(2 * w + 1 - w // 2, (3, 1)))
    long = 3 * w + sink + 4
    prompt = chunks(long, (4,))
    return [
        Schedule("rewind-3-of-long", (*prompt, Rewind(long - 3), *tail)),
        Schedule("rewind-1-of-long", (*prompt, Rewind(long - 1), *tail)),
        Schedule("rewind-w-of-long", (*prompt, Rewind(long - w), *tail)),
        Schedule("rewind-far", (*prompt, Rewind(5), *tail)),
        Schedule("rewind-before-wrap", (*chunks(w, (4,)), Rewind(max(w - 3, 0)), *tail)),
        Schedule("rewind-twice", (*prompt, Rewind(long - 2), Feed(1), Rewind(long - 3), *tail)),
    ]


def byte_runs(window: int, sink: int = 0) -> list[Schedule]:
    """For cache bytes: a long prompt at once or in chunks, the first decode, then steady decode."""
    w, n = window, 50 * window
    steady = chunks(2 * w + sink, (1,))
    return [
        Schedule("bytes-prefill-50w", (Feed(n), *steady)),
        Schedule("bytes-chunked-50w", (*chunks(n, (2 * w,)), *steady)),
    ]


def far(window: int, sink: int = 0) -> list[Schedule]:
    """Past position 256 and past 512: at once, and in steps of every kind on the way there.

    A kernel that splits its keys has more splits there than a small window has keys.  From 257 on
    bfloat16 cannot tell every position from its neighbours, from 513 on only every fourth.
    """
    del window, sink  # what these show depends on the position alone
    then = (*chunks(3, (1,)), Feed(5), *chunks(2, (1,)))
    way = (Feed(3), Feed(2), Feed(1), Feed(20), Feed(1), Feed(60), Feed(1), Feed(514))
    return [
        Schedule("past-256", (Feed(302), *then)),
        Schedule("past-512", (Feed(602), *then)),
        Schedule("past-512-in-steps", (*way, *then)),
    ]


#: Every function above that makes schedules for a window and a sink.
FAMILIES = (standard, resets, rewinds, byte_runs, far)
