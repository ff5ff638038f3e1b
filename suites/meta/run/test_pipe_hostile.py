"""Random lines on a child's pipe: taken where due, else garbled; never a traceback or two answers.

HOSTILE_EXAMPLES=2000 runs longer.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cases.case import parse
from harness.results.finding import Finding
from harness.results.record import Origin, finish, planned, start
from harness.run.parent import Progress, RefusedError, _Turn
from harness.run.process import GarbledError, _message

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "100"))
CASE = parse("mistral/prefill-w/float32/b1")
ORIGIN = Origin("mine", "mine.py:Mine")
PLANNED = planned(ORIGIN, "r1", "values::x", "values", CASE).to_json()
ANSWER = finish(start(ORIGIN, "r1", "values::x", "values", CASE), Finding("values"), 0.1).to_json()

junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
numbers = st.integers(-2, 4) | junk
#: What a child says, with any part of it replaced.
said = st.one_of(
    st.fixed_dictionaries({"kind": st.just("ready")}),
    st.fixed_dictionaries({"kind": st.just("refused"), "message": st.text(max_size=30) | junk}),
    st.fixed_dictionaries(
        {
            "kind": st.just("plan"),
            "subject": st.just("mine") | junk,
            "version": st.just("") | junk,
            "count": st.integers(0, 3) | junk,
        }
    ),
    st.fixed_dictionaries({"kind": st.just("item"), "record": st.just(PLANNED) | junk}),
    st.fixed_dictionaries({"kind": st.just("begin"), "number": numbers}),
    st.fixed_dictionaries(
        {"kind": st.just("record"), "number": numbers, "record": st.just(ANSWER) | junk}
    ),
    st.fixed_dictionaries({"kind": st.just("end")}),
    st.fixed_dictionaries({"kind": junk}),
)
lines = said.map(lambda message: json.dumps(message).encode()) | st.binary(max_size=40)
#: Mostly a run as it should be, so that what comes late is met as well.
RIGHT: list[dict[str, Any]] = [
    {"kind": "ready"},
    {"kind": "plan", "subject": "mine", "version": "", "count": 2},
    {"kind": "item", "record": PLANNED},
    {"kind": "item", "record": PLANNED},
    {"kind": "begin", "number": 0},
    {"kind": "record", "number": 0, "record": ANSWER},
    {"kind": "begin", "number": 1},
    {"kind": "record", "number": 1, "record": ANSWER},
    {"kind": "end"},
]


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, len(RIGHT)), st.lists(lines, max_size=12))
def test_whatever_a_child_writes_is_taken_once_or_garbled(right: int, rest: list[bytes]) -> None:
    progress = Progress()
    turn = _Turn(progress, 0)
    for line in [*(json.dumps(message).encode() for message in RIGHT[:right]), *rest]:
        before = list(progress.records)
        with suppress(GarbledError, RefusedError):
            turn.take(_message(line))
        answered = [r for r in before if r is not None]
        kept = [r for r in progress.records if r is not None]
        assert kept[: len(answered)] == answered, "an answer was taken back"
        assert len(kept) <= len(answered) + 1
        assert len(kept) <= len(progress.planned)


def test_a_run_as_it_should_be_is_taken_whole() -> None:
    progress = Progress()
    turn = _Turn(progress, 0)
    for message in RIGHT:
        turn.take(_message(json.dumps(message).encode()))
    assert turn.over
    assert [r.status for r in progress.done] == ["pass", "pass"]
