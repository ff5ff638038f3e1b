"""How a check ended without an answer: kinds and messages shared by every way of running.

`harness check` watches its own child process, and the suites watch pytest's workers.  Both report
a hang, a death or an exception in the same words.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.results.finding import Kind

if TYPE_CHECKING:
    from harness.results.record import Record

#: Names of the exceptions for a machine out of memory.  By name, so that torch is not imported.
OUT_OF_MEMORY = frozenset({"MemoryError", "OutOfMemoryError"})
#: What torch's allocators say in a plain RuntimeError, which only its text gives away.
_OUT_OF_MEMORY_TEXT = ("can't allocate memory", "out of memory")


@dataclass(frozen=True)
class End:
    """Why there is no answer: kind and message of the record."""

    kind: Kind
    message: str

    def fill(self, record: Record) -> Record:
        """Give the record this kind and message, and return it."""
        record.kind, record.message = str(self.kind), self.message
        return record


def hung(limit: float, *, forced: bool = False, where: str = "") -> End:
    """No answer within `limit` seconds.

    forced: no exception could end it; it was killed.  where: what its last stack tells.
    """
    tail = ", and the process had to be killed" if forced else ""
    tail += f"; {where}" if where else ""
    return End(Kind.HUNG, f"hung: no answer within {limit:g} s{tail}")


def garbled(what: str) -> End:
    """A process wrote what is no answer on the pipe that is for answers, and was ended."""
    return End(Kind.DIED, f"the process was ended: on the pipe of the harness came {what}")


def died(how: str = "", *, what: str = "the process", when: str = "") -> End:
    """A process died.  how: what is known about its death.  when: for example "in mid-check"."""
    said = " ".join(filter(None, (f"{what} died", when)))
    return End(Kind.DIED, f"{said}: {how}" if how else said)


def failed(what: str, error: BaseException | None) -> End:
    """Something around the check raised, such as a fixture of its test."""
    kind = Kind.RAISED if error is None else kind_of(error)
    return End(kind, f"{what} failed: {'' if error is None else error}")


def not_run(deaths: int) -> End:
    """Not run, because `deaths` checks before it hung or died."""
    return End(Kind.MISSING, f"not run: {deaths} checks before it hung or died")


def exit_words(status: int) -> str:
    """A process's exit status in words: "signal 9, SIGKILL" or "exit status 3"."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"signal {-status}, {signal.Signals(-status).name}"
    except ValueError:
        return f"signal {-status}, unknown"


def kind_of(error: BaseException) -> Kind:
    """The kind of an exception that ended a check: `RAISED` or `OUT_OF_MEMORY`."""
    named = OUT_OF_MEMORY.intersection(cls.__name__ for cls in type(error).__mro__)
    text = str(error).lower()
    exhausted = named or any(sign in text for sign in _OUT_OF_MEMORY_TEXT)
    return Kind.OUT_OF_MEMORY if exhausted else Kind.RAISED
