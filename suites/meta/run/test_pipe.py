"""What a subject writes on the pipe of its process is a broken check, never an answer or a hang."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from subject_files import GOOD

from harness.results.record import Record
from harness.run import parent
from harness.run.child import MAX_LINE
from harness.run.job import MAX_MESSAGE
from harness.run.process import Child, GarbledError

CASE = "mistral/prefill-w/float32/b1"
#: Subjects that do something when their cache is made; the pipe's number is their first argument.
SUBJECTS = (
    GOOD
    + '''

import json
import os
import sys
import time

PIPE = int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdigit() else -1


class Writes(Mine):
    text = b""

    def new_cache(self, layer, shape):
        os.write(PIPE, self.text)
        return super().new_cache(layer, shape)


class Garbage(Writes):
    name, text = "garbage", b"this is not json\\n"


class List(Writes):
    name, text = "list", b"[1,2]\\n"


class Empty(Writes):
    name, text = "empty", b"{}\\n"


class Number(Writes):
    name, text = "number", b'{"kind": "begin", "number": 99999}\\n'


class Deep(Writes):
    name, text = "deep", b"[" * 100_000 + b"\\n"


class Flood(Mine):
    name = "flood"

    def new_cache(self, layer, shape):
        while True:
            os.write(PIPE, b"x" * 65536)


class Chatter(Mine):
    """Messages without an end, each of a good form."""

    name = "chatter"

    def new_cache(self, layer, shape):
        while True:
            os.write(PIPE, b'{"kind": "ready"}\\n')


class Closes(Mine):
    name = "closes"

    def new_cache(self, layer, shape):
        os.close(PIPE)
        time.sleep(600)


class Long(Mine):
    name = "long"

    def new_cache(self, layer, shape):
        raise RuntimeError("z" * 30_000_000)


class Mute(Mine):
    name = "mute"

    def new_cache(self, layer, shape):
        class Broken(Exception):
            def __str__(self):
                raise ValueError("no text")

        raise Broken


class Forges(Mine):
    """Answers for the check that runs, and then for the next."""

    name = "forges"

    def new_cache(self, layer, shape):
        frame = sys._getframe()
        while frame.f_code.co_name != "main":
            frame = frame.f_back
        for number, record in enumerate(frame.f_locals["started"]):
            record.status, record.message, record.kind = "pass", "", ""
            line = {"kind": "record", "number": number, "record": record.to_json()}
            os.write(PIPE, json.dumps(line).encode() + b"\\n")
        time.sleep(600)
'''
)


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The records of a subject: of one check, or of those that a selection names."""
    (tmp_path / "own.py").write_text(SUBJECTS)
    monkeypatch.chdir(tmp_path)

    def check(name: str, timeout: float = 60, **selection: str) -> list[Record]:
        chosen = selection or {"case": CASE, "check": "values"}
        (*_, last) = parent.run(f"own.py:{name}", chosen, timeout)
        return last.done

    return check


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        ("Garbage", "died", "came 'this is not json'"),
        ("List", "died", "came '[1,2]'"),
        ("Empty", "died", "came '{}', which is not due"),
        ("Number", "died", "'number': 99999}\", which is not due"),
        ("Deep", "died", "came '[[["),
        ("Flood", "died", f"came a line of more than {MAX_LINE:,} bytes"),
        ("Chatter", "died", "came \"{'kind': 'ready'}\", which is not due"),
        ("Closes", "died", "it closed the harness's pipe and lived on"),
        ("Long", "raised", "(cut: 30,000,"),
        ("Mute", "raised", "ValueError: no text"),
    ],
)
def test_it_is_one_broken_check(checked, name: str, kind: str, said: str) -> None:
    (record,) = checked(name)
    assert (record.status, record.kind) == ("error", kind)
    assert said in record.message
    assert len(record.message) < MAX_MESSAGE + 100


def test_no_check_passes_that_was_not_begun(checked) -> None:
    records = checked("Forges", model="mistral-w9", check="purity")
    assert len(records) > 1
    assert {record.status for record in records} == {"error"}


def test_the_plan_and_its_numbers_are_the_parent_s(checked) -> None:
    records = checked("Mine", model="mistral-w9", check="purity")
    assert {record.status for record in records} == {"pass"}
    turn = parent._Turn(parent.Progress(planned=records, records=[None] * len(records)), 0)
    turn.take({"kind": "ready"})
    begin = {"kind": "begin", "number": 0}
    answers = [
        {"kind": "record", "number": 0, "record": other.to_json()}
        for other in (records[1], Record.from_json(records[0].to_json()))
    ]
    for wrong in (
        answers[1],
        {"kind": "begin", "number": 1},
        {"kind": "end"},
        {"kind": "plan", "subject": "mine", "version": "", "count": 1},
    ):
        with pytest.raises(GarbledError, match=r"not due|second plan"):
            turn.take(wrong)
    turn.take(begin)
    with pytest.raises(GarbledError, match="the record of another check, by its item"):
        turn.take(answers[0])
    with pytest.raises(GarbledError, match="not due"):
        turn.take(begin)
    assert turn.take(answers[1])
    with pytest.raises(GarbledError, match="not due"):
        turn.take(answers[1])


def test_a_pipe_that_is_always_ready_keeps_no_one_waiting(
    checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a cap that is never reached, the time limit ends a flood."""
    del checked  # its folder
    monkeypatch.setattr("harness.run.process.MAX_LINE", 1 << 40)
    with Path("output").open("w+b") as output:
        child = Child("own.py:Flood", {"case": CASE, "check": "values"}, 0, output)
        try:
            message = None
            while (message or {}).get("kind") != "begin":
                message = child.next(120)
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                child.next(0.2)
            assert time.monotonic() - began < 60
        finally:
            child.end()
