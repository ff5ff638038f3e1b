"""The state machine: hypothesis draws and shrinks a history, and a check of the suites judges it.

The rules only write down what is done (feed, reset, rewind, copy).  The history is then run as a
case like any other, so that its name is enough to run a failure again:
``mistral/steps-9.r3.4/float32/b1``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.cases.case import Case
from harness.cases.models import Model
from harness.cases.schedules import Copy, Feed, Reset, Rewind, Step, of_steps
from harness.checks import run_check
from harness.results.finding import Finding, Status

#: The most rules in one history, and the turns of the cache (see the glossary) after which nothing
#: more is drawn: a ring wraps several times, and a history still runs quickly.
STEPS = 14
TURNS = 9
BATCHES = (1, 1, 1, 3)


@dataclass(frozen=True)
class Find:
    """A history that breaks a check, as short as hypothesis could make it."""

    subject: str
    check: str
    case: str
    message: str


class BrokenError(AssertionError):
    """A history broke a check."""

    def __init__(self, check: str, case: Case, finding: Finding) -> None:
        super().__init__(f"{check} {case.id}: {finding.message}")
        self.check, self.case, self.finding = check, case, finding


def check_of(case: Case) -> str:
    """The check that judges a history.

    "rewind" if the history rewinds, otherwise "reset" if it resets, otherwise "values".
    """
    if case.schedule.has(Rewind):
        return "rewind"
    return "reset" if case.schedule.has(Reset) else "values"


def judge(subject: type[Any], case: Case) -> None:
    """Run a history.  Raises BrokenError if its check does not hold."""
    check = check_of(case)
    finding = run_check(subject, check, case)
    if finding.status in (Status.FAIL, Status.ERROR):
        raise BrokenError(check, case, finding)


def machine_for(
    subject: type[Any], model: Model, ran: list[str], until: float = inf
) -> type[RuleBasedStateMachine]:
    """A machine for one subject and model; it adds the id of every history it runs to `ran`.

    until: on `time.monotonic`; later histories are not run, unless one is being minimised.
    """
    found: list[str] = []
    turn = model.turn
    borders = sorted(
        {1, 2, 3, turn - 1, turn, turn + 1, 2 * turn, 2 * turn + 1, 3 * turn + 5} - {0}
    )
    lengths = st.sampled_from(borders) | st.integers(1, 2 * turn + 2)

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.steps: list[Step] = []
            self.held = self.fed = 0
            self.batch = 1

        @initialize(batch=st.sampled_from(BATCHES), n=lengths)
        def open(self, batch: int, n: int) -> None:
            self.batch = batch
            self.feed(n)

        @precondition(lambda self: self.fed < TURNS * turn)
        @rule(n=lengths)
        def feed_some(self, n: int) -> None:
            self.feed(n)

        @precondition(lambda self: self.fed < TURNS * turn)
        @rule(n=st.integers(1, turn))
        def decode(self, n: int) -> None:
            for _ in range(n):
                self.feed(1)

        @precondition(lambda self: not any(isinstance(s, Rewind) for s in self.steps))
        @rule(n=lengths)
        def reset(self, n: int) -> None:
            self.steps.append(Reset())
            self.held = 0
            self.feed(n)

        @precondition(lambda self: self.held > 1)
        @rule(back=st.integers(1, 2 * turn), n=lengths)
        def rewind(self, back: int, n: int) -> None:
            self.held = max(0, self.held - back)
            self.steps.append(Rewind(self.held))
            self.feed(n)

        @rule()
        def copy(self) -> None:
            self.steps.append(Copy())

        def feed(self, n: int) -> None:
            self.steps.append(Feed(n))
            self.held, self.fed = self.held + n, self.fed + n

        def teardown(self) -> None:
            if self.steps and (found or time.monotonic() < until):
                case = Case(model, of_steps(self.steps), batch=self.batch)
                ran.append(case.id)
                try:
                    judge(subject, case)
                except BrokenError:
                    found.append(case.id)
                    raise

    return Machine


def search(
    subject: type[Any], model: Model, salt: int, examples: int, until: float = inf
) -> tuple[Find | None, int]:
    """Draw `examples` histories from the seed `salt`, or fewer if `until` comes before.

    until: on `time.monotonic`; a find is minimised whenever it was made.  Returns the find, if any,
    and how many histories were run, those that shrink a find included.
    """
    ran: list[str] = []
    machine = seed(salt)(machine_for(subject, model, ran, until))
    chosen = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
        report_multiple_bugs=False,
    )
    try:
        run_state_machine_as_test(machine, settings=chosen)
    except BrokenError as broken:
        text = " ".join(broken.finding.message.split())
        return Find(subject.name, broken.check, broken.case.id, text), len(ran)
    return None, len(ran)
