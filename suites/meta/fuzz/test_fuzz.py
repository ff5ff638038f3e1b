"""The fuzz finds planted stateful defects, names them so that they come back, and loses no task."""

import copy
import itertools
import json
import sys

import pytest
from subject_files import GOOD
from typer.testing import CliRunner

from harness import fuzz
from harness.cases.case import parse
from harness.cases.models import tiny
from harness.cases.schedules import Copy, Feed, Reset, Rewind, of_steps, read_steps
from harness.checks import run_check
from harness.cli import fuzz as command
from harness.cli import main as cli
from harness.contract import Unsupported
from harness.defects import CORRECT, DEFECTS
from harness.defects.base import Trimmed, TrimmedSubject
from harness.fuzz import campaign
from harness.fuzz.campaign import TRIES, Task, local, tasks
from harness.fuzz.machine import judge, search
from harness.fuzz.on_ray import on_ray
from harness.results.finding import Status

#: Planted defects, and the check of the history that shows each; of two, either may come first.
STATEFUL = {
    "OverwrittenBeforeRead": "values rewind",
    "StaleAfterReset": "reset",
    "WrongAtRingMultiples": "values",
    "WrongFromThirdWrap": "values",
    "RewindForgetsNothing": "rewind",
    "RewindPastEviction": "rewind",
    "PositionsStall": "values",
    "SecondPrompt": "values",
    "RefusedRewindForgets": "rewind",
    "SecondReset": "reset",
    "RewindThenChunk": "rewind",
}
PLANTED = [d for d in DEFECTS if d.name.removeprefix("defect.") in STATEFUL]
SEEDS = 8
HOUR = 3600.0


def find(subject, model):
    """The first find over a few seeds."""
    searched = (search(subject, tiny(model), seed, campaign.EXAMPLES)[0] for seed in range(SEEDS))
    return next((found for found in searched if found is not None), None)


@pytest.mark.parametrize("defect", PLANTED, ids=lambda d: d.name)
def test_planted_stateful_defects_are_found_and_named(defect):
    found = find(defect.subject, defect.models[0])
    assert found is not None
    assert found.check in STATEFUL[defect.name.removeprefix("defect.")].split()
    case = parse(found.case)
    assert run_check(defect.subject, found.check, case).status is Status.FAIL
    assert len(case.schedule.steps) <= 12, "a shrunk history is short"


class SharedCopy(Trimmed):
    """Its copies share the original's state: what one is fed, the other holds."""

    def __deepcopy__(self, memo):
        return self


class SharedCopySubject(TrimmedSubject):
    name, cache = "shared-copy", SharedCopy


def test_a_copy_that_shares_its_state_is_found():
    found = find(SharedCopySubject, "mistral")
    assert found is not None
    assert ".c." in found.case


class NoCopy(Trimmed):
    def __deepcopy__(self, memo):
        raise TypeError("cannot pickle a handle")


class NoCopySubject(TrimmedSubject):
    name, cache = "no-copy", NoCopy


def test_what_cannot_be_copied_is_not_claimed():
    case = parse("mistral/steps-5.c.1/float32/b1")
    assert run_check(NoCopySubject, "values", case).status is Status.NOT_CLAIMED
    judge(NoCopySubject, case)  # and it is not a find


@pytest.mark.parametrize("subject", CORRECT[:2], ids=lambda s: s.name)
@pytest.mark.parametrize("model", ["gemma3", "llama3-sink2"])
def test_correct_subjects_are_left_alone(subject, model):
    assert search(subject, tiny(model), 0, campaign.EXAMPLES)[0] is None


def test_the_name_of_a_history_is_the_history():
    steps = (Feed(5), Reset(), Feed(9), Rewind(7), Copy(), Feed(1))
    schedule = of_steps(steps)
    assert schedule.name == "steps-5.x.9.r7.c.1"
    assert read_steps(schedule.name) == schedule
    assert copy.deepcopy(schedule).length == 8


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("steps-5.y", "got 'y'"),
        ("steps-0", "got '0'"),
        ("steps-", "got ''"),
        ("steps-5.r9", "rewind to 9 of 5 positions"),
        ("steps-5.r", "got 'r'"),
    ],
)
def test_a_history_that_cannot_be_is_refused(name, expected):
    with pytest.raises(ValueError, match=expected):
        parse(f"mistral/{name}/float32/b1")


# ── campaigns ───────────────────────────────────────────────────────────────────────────────────

#: Kills the first process that opens it; from then on it is a correct (if wasteful) cache.
DIES_ONCE = GOOD.replace(
    "    def new_cache(self, layer, shape):\n",
    """    def new_cache(self, layer, shape):
        import os
        from pathlib import Path

        if not Path(MARK).exists():
            Path(MARK).touch()
            os._exit(3)
""",
)


#: Seconds that no campaign here needs: the tasks end, however slow the machine is.
A_DAY = 86_400.0


@pytest.fixture
def dying(tmp_path):
    mark = tmp_path / "died"
    path = tmp_path / "dying.py"
    path.write_text(f"MARK = {str(mark)!r}\n{DIES_ONCE}")
    return f"{path}:Mine", mark


def first(n, stream):
    return list(itertools.islice(stream, n))


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_a_worker_that_dies_in_the_middle_loses_no_task(dying, engine):
    target, mark = dying
    stream = tasks([target], ["mistral"])
    if engine == "ray":
        done = list(on_ray(iter(first(4, stream)), A_DAY, "local"))
    else:
        done = list(local(iter(first(4, stream)), A_DAY))
    assert mark.exists()
    assert sorted(d.task.seed for d in done) == [0, 1, 2, 3]
    assert all(d.find is None for d in done)
    assert all(d.examples >= campaign.EXAMPLES for d in done)


def test_a_task_that_kills_every_worker_is_a_find(dying):
    target, mark = dying
    path = target.partition(":")[0]
    with open(path, encoding="utf-8") as source:
        always = source.read().replace("Path(MARK).touch()", "pass")
    with open(path, "w", encoding="utf-8") as out:
        out.write(always)
    done = list(local(iter([Task(target, "mistral", 0)]), A_DAY))
    assert not mark.exists()
    assert len(done) == 1
    assert done[0].find is not None
    assert f"died {TRIES} times" in done[0].find.message


def test_the_command_says_how_to_see_a_find_again(tmp_path, monkeypatch):
    """By a number of tasks, not by a time: how far a second goes depends on the machine."""

    def engine(stream, seconds, ray):
        del seconds, ray
        return local(itertools.islice(stream, 2), HOUR)

    monkeypatch.setattr(command, "_engine", engine)
    (tmp_path / "mine.py").write_text(GOOD.replace("q - keys <", "q - keys <="))
    finds = tmp_path / "finds.jsonl"
    said = CliRunner().invoke(
        cli.app,
        [
            "fuzz",
            f"{tmp_path}/mine.py:Mine",
            "--model",
            "mistral",
            "--seconds",
            "1",
            "--finds",
            str(finds),
        ],
    )
    assert said.exit_code == 1
    line = json.loads(finds.read_text().splitlines()[0])
    assert f"--case {line['case']} --check {line['check']}" in said.output
    assert run_check(_loaded(tmp_path), line["check"], parse(line["case"])).status is Status.FAIL


def _loaded(folder):
    from harness.run import registry

    return registry.load(f"{folder}/mine.py:Mine").subject


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["harness.sdpa"], "harness.sdpa is an attention operation"),
        (
            ["harness.sink", "--model", "nothing"],
            "--model must be one of those that harness.sink can be fuzzed on: mistral, mistral-w9, "
            "mistral-w1, mistral-w64, llama3-sink2, llama3-sink4, llama3-sink8; got 'nothing'",
        ),
        (["harness.sink", "--model", "mistral", "--model", "nothing"], "; got 'nothing'"),
        (["nothing.here"], "unknown target 'nothing.here'"),
    ],
)
def test_a_campaign_that_cannot_be_is_refused(run_harness, arguments, expected):
    status, _, err = run_harness("fuzz", *arguments)
    assert status == 2
    assert expected in err


def test_without_a_small_model_the_message_says_to_name_one(run_harness, monkeypatch):
    monkeypatch.setattr(fuzz.campaign, "_small", lambda _model: False)
    status, _, err = run_harness("fuzz", "harness.sink")
    assert status == 2
    assert err.startswith("harness: no small model among those that harness.sink can be fuzzed on:")
    assert err.endswith("llama3-sink8; name one with --model\n")


def test_without_hypothesis_the_command_says_what_to_install(run_harness, monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)  # as it is where it is not installed
    for name in ("campaign", "machine"):
        monkeypatch.delitem(sys.modules, f"harness.fuzz.{name}")
        monkeypatch.delattr(fuzz, name)
    status, _, err = run_harness("fuzz", "harness.sink")
    assert status == 2
    assert "pip install 'attention-harness[fuzz]'" in err


def test_unsupported_is_no_find():
    class Refuses(TrimmedSubject):
        name = "refuses"

        def new_cache(self, layer, shape):
            raise Unsupported(f"{layer} of {shape}")

    assert search(Refuses, tiny("mistral"), 0, 5)[0] is None


def test_a_search_whose_time_is_over_runs_no_history():
    assert search(CORRECT[0], tiny("mistral"), 0, campaign.EXAMPLES, until=0.0) == (None, 0)
