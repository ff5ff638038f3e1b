"""History: what changed, since when, and steps on the right night; a year of it stays quick."""

import errno
import os
import random
import re
import shutil
import time
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.gate.verdict import Verdict
from harness.results.history import History, HistoryError
from harness.results.steps import last_step

NIGHTS, CASES = 365, 2_000
STEP_AT = 300


def night(n):
    return f"2026{n:05d}T000000-0000"


def frame(cases=3, *, status="pass", peak=1_000, seconds=0.1, run=""):
    rows = [
        {
            "run": run,
            "subject": f"subject{i % 10}",
            "check": "values",
            "case": f"model/s{i}/float32/b1",
            "device": "cpu",
            "scheme": "uniform",
            "status": status,
            "known": "",
            "peak_bytes": peak + i,
            "seconds": seconds,
        }
        for i in range(cases)
    ]
    return pd.DataFrame(rows)


def with_status(made, row, status):
    made.loc[row, "status"] = status
    return made


@pytest.fixture
def history(tmp_path):
    return History(str(tmp_path / "store"))


def add(history, n, made, *, red=False):
    verdict = Verdict(reasons=["x"] if red else [])
    history.add(made, night(n), red=verdict.red, headline=verdict.headline)


def test_the_last_two_runs_are_compared_by_status_and_integer(history):
    add(history, 1, frame())
    add(history, 2, with_status(frame(peak=1_000), 1, "fail"), red=True)
    changes = history.changes()
    assert changes[["what", "before", "now"]].values.tolist() == [["status", "pass", "fail"]]
    add(history, 3, frame(peak=1_001))
    changes = history.changes()
    assert changes["what"].tolist() == ["status", *["peak_bytes"] * 3]
    assert changes.iloc[1][["before", "now"]].tolist() == ["1000", "1001"]


def test_a_check_that_came_or_went_shows(history):
    add(history, 1, frame(3))
    add(history, 2, frame(2))
    gone = history.changes().query("what == 'status'")
    assert gone["case"].tolist() == ["model/s2/float32/b1"]
    assert gone["now"].isna().all()


def test_broken_since_the_first_of_an_unbroken_row_of_nights(history):
    for n, status in enumerate(["fail", "pass", "fail", "missing", "error"], start=1):
        add(history, n, with_status(frame(), 1, status))
    since = history.broken_since()
    assert since[["case", "since"]].values.tolist() == [["model/s1/float32/b1", night(3)]]
    add(history, 6, frame())
    assert history.broken_since().empty


def test_broken_from_the_first_night_on(history):
    for n in (1, 2):
        add(history, n, with_status(frame(), 0, "fail"))
    assert history.broken_since()["since"].tolist() == [night(1)]


def test_a_night_is_one_row_with_its_verdict(history):
    add(history, 1, frame())
    add(history, 2, with_status(frame(), 0, "error"), red=True)
    nights = history.nights()
    assert nights[["run", "red", "pass", "broken"]].values.tolist() == [
        [night(1), False, 3, 0],
        [night(2), True, 2, 1],
    ]


def test_old_runs_are_dropped(history):
    for n in range(1, 6):
        add(history, n, frame())
    assert history.prune(keep=2) == [night(1), night(2), night(3)]
    assert history.runs() == [night(4), night(5)]


def test_any_store_that_fsspec_opens():
    history = History("memory://nightly")
    add(history, 1, frame())
    add(history, 2, frame(peak=2))
    assert history.runs() == [night(1), night(2)]
    assert set(history.changes()["what"]) == {"peak_bytes"}
    with pytest.raises(HistoryError, match=r"--store nosuch://x"):
        History("nosuch://x")


def test_an_empty_store_has_nothing_to_say(history):
    assert history.runs() == []
    assert history.changes().empty
    assert history.nights().empty
    assert history.broken_since().empty
    assert history.steps() == []


def test_a_file_that_is_no_run_costs_that_run_alone(history, tmp_path):
    for n in (1, 3):
        add(history, n, with_status(frame(), 0, "fail"))
    store = tmp_path / "store"
    good = (store / f"{night(1)}.parquet").read_bytes()
    torn = {2: b"", 4: b"nothing", 5: good[: len(good) // 2], 6: good[:-9], 7: good[9:]}
    for n, held in torn.items():
        (store / f"{night(n)}.parquet").write_bytes(held)
    with duckdb.connect() as other:
        other.execute(f"COPY (SELECT 1 AS one) TO '{store}/{night(8)}.parquet'")
    fresh = History(str(store))
    assert fresh.runs() == [night(1), night(3)]
    assert list(fresh.unread()) == [night(n) for n in (*torn, 8)]
    assert all("\n" not in why for why in fresh.unread().values())
    assert fresh.broken_since()[["since", "runs"]].values.tolist() == [[night(1), 2]]
    assert len(fresh.nights()) == 2
    said = CliRunner().invoke(cli.app, ["history", "--store", str(store)]).output
    assert f"{night(2)} cannot be read, and is left out: " in said
    assert night(3) in said


@pytest.mark.parametrize("name", ["it's", "a [x] * ?", 'say "so"', "ü ñ"])
def test_a_store_may_have_any_name(tmp_path, name):
    history = History(str(tmp_path / name))
    add(history, 1, frame())
    add(history, 2, with_status(frame(), 0, "fail"))
    assert history.runs() == [night(1), night(2)]
    assert len(history.broken_since()) == len(history.changes()) == 1


def test_a_store_that_cannot_be_written_holds_no_stump(history, tmp_path, monkeypatch):
    add(history, 1, frame())

    def full(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(HistoryError, match="cannot be written: No space left on device"):
        add(history, 2, frame())
    assert [path.name for path in (tmp_path / "store").iterdir()] == [f"{night(1)}.parquet"]


@pytest.mark.parametrize("run", ["", "a/b", "../x", ".hidden", "a b", "a'b", "x" * 300])
def test_what_can_be_no_name_of_a_file_is_no_run(history, tmp_path, run):
    with pytest.raises(HistoryError, match="run must be letters"):
        history.add(frame(), run, red=False, headline="x")
    assert not (tmp_path / "store").exists()


def test_an_integer_has_its_value_since_the_first_of_an_unbroken_row_of_nights(history):
    for n, peak in enumerate([5, 7, 5, 5], start=1):
        add(history, n, frame(1, peak=peak))
    key = ("subject0", "values", "model/s0/float32/b1")
    assert history.integer_since([(*key, "peak_bytes")]) == {(*key, "peak_bytes"): night(3)}
    assert history.integer_since([(*key, "cache_bytes"), ("x", "y", "z", "peak_bytes")]) == {}
    add(history, 5, frame(1, peak=6))
    assert history.integer_since([(*key, "peak_bytes")]) == {(*key, "peak_bytes"): night(5)}


def test_the_terminal_groups_and_what_crashed_or_is_missing_leads(history, tmp_path):
    """Hundreds of equal failures take a line; no kind of a broken check is cut off."""
    add(history, 1, frame(700))
    made = frame(700, peak=7)
    made["status"] = ["fail", "pass"] * 350
    made.loc[699, "status"] = "missing"
    made.loc[650, "status"] = "error"
    add(history, 2, made, red=True)
    store = str(tmp_path / "store")
    said = CliRunner().invoke(cli.app, ["history", "--store", store]).output
    _, broken, changed = re.split(r"Broken, and since.*|Changed with.*", said)
    rows = [line.split() for line in broken.splitlines() if line.startswith("subject")][1:]
    assert [row[2] for row in rows] == ["missing", "error", *["fail"] * 5]
    assert sum(int(row[-2]) for row in rows) == 351
    rows = [line.split() for line in changed.splitlines() if line.startswith("subject")][1:]
    assert [row[2:5] for row in rows][:3] == [
        ["status", "pass", "missing"],
        ["status", "pass", "error"],
        ["status", "pass", "fail"],
    ]
    assert len(rows) == 7 + 10
    assert "more" not in changed


def test_the_terminal_names_what_changed_and_since_when(tmp_path):
    store = str(tmp_path / "store")
    empty = CliRunner().invoke(cli.app, ["history", "--store", store])
    assert "no runs in" in empty.output
    history = History(store)
    for n in range(1, 13):
        add(history, n, frame(seconds=1.0 if n < 7 else 2.0))
    add(history, 13, with_status(frame(peak=999, seconds=2.0), 2, "fail"), red=True)
    said = CliRunner().invoke(cli.app, ["history", "--store", store]).output
    assert f"alert: subject0 values takes 2.00 s since {night(7)}, 1.00 s before" in said
    assert "Broken, and since which run" in said
    assert re.search(rf"fail +{night(13)} \(1 run\)", said)
    assert "model/s2/float32/b1" in said


@pytest.mark.parametrize("factor", [1.3, 0.6])
@pytest.mark.parametrize("at", [5, 17, 55])
def test_a_step_is_found_on_its_night_in_noise(factor, at):
    noise = random.Random(at)
    series = [noise.gauss(10, 0.4) * (factor if n >= at else 1) for n in range(60)]
    step = last_step(series)
    assert step is not None
    assert step.index == at
    assert step.ratio == pytest.approx(factor, rel=PART_OF_NOISE)


PART_OF_NOISE = 3 * 0.4 / 10  # three standard deviations of one night


def test_noise_and_single_slow_nights_are_no_steps():
    for seed in range(50):
        noise = random.Random(seed)
        series = [noise.gauss(10, 1) + (30 if n in (20, 41) else 0) for n in range(60)]
        assert last_step(series) is None, seed


def test_of_two_steps_the_last_is_given():
    step = last_step([1.0] * 20 + [2.0] * 20 + [3.0] * 20)
    assert step is not None
    assert (step.index, step.before, step.after) == (40, 2.0, 3.0)


def test_a_year_of_nights_is_small_and_quick(history, tmp_path):
    """365 nights of 2,000 cases stay small, and quick to query."""
    noise = random.Random(0)
    began = time.perf_counter()
    for n in range(NIGHTS):
        slower = 1.5 if n >= STEP_AT else 1.0
        made = frame(CASES)
        made["seconds"] = [0.1 * slower * noise.uniform(0.95, 1.05) for _ in range(CASES)]
        add(history, n, with_status(made, 7, "fail") if n >= NIGHTS - 3 else made)
    size = sum(path.stat().st_size for path in (tmp_path / "store").iterdir())
    wrote, began = time.perf_counter() - began, time.perf_counter()
    steps = history.steps(last=NIGHTS)
    since = history.broken_since()
    assert history.nights().shape[0] == 14
    assert history.changes().empty
    took = time.perf_counter() - began
    assert {s.run for s in steps} == {night(STEP_AT)}
    assert since["since"].tolist() == [night(NIGHTS - 3)]
    per_record = size / (NIGHTS * CASES)
    assert per_record < 60, "more than a compressed row needs"
    print(f"{size / 1e6:.1f} MB, {per_record:.1f} bytes a record, {took:.2f} s for four queries")
    assert took < wrote, (
        "reading a year takes longer than writing it did, on a machine of any speed"
    )
