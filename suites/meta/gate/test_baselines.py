"""Baselines are exact, drift either way is told, and an update touches nothing else."""

import subprocess

import pytest
from gate_data import record

from harness.gate.baselines import BaselineError, Baselines, Comparison, read, write
from harness.results.record import to_frame

ABSENT = record(subject="theirs", status="not-installed", case="", check="load", device="")


def cases(*names):
    return [f"mistral/{name}/float32/b1" for name in names]


def run_of(bytes_by_case, **changes):
    return [record(case=case, cache_bytes=n, **changes) for case, n in bytes_by_case.items()]


def stored(folder, records, whole=False):
    rows = read(folder)
    done = rows.update(to_frame(records), whole=whole)
    write(rows, folder)
    return done


def compared(folder, *records, whole=False):
    return read(folder).compare(to_frame(records), whole=whole)


@pytest.mark.parametrize("now", [1023, 1025, 2**60])
def test_drift_is_told_either_way(tmp_path, now):
    stored(tmp_path, [record(cache_bytes=1024)])
    (drift,) = compared(tmp_path, record(cache_bytes=now)).drift
    assert (drift.integer, drift.baseline, drift.now) == ("cache_bytes", 1024, now)
    assert f"{now - 1024:+d}" in str(drift)


def test_equal_integers_do_not_drift(tmp_path):
    big = 2**60 + 1
    stored(tmp_path, [record(cache_bytes=1, peak_bytes=big)])
    assert compared(tmp_path, record(cache_bytes=1, peak_bytes=big)).drift == []


def test_an_integer_that_vanished_or_is_new_drifts(tmp_path):
    stored(tmp_path, [record(cache_bytes=1, peak_bytes=2)])
    drift = compared(tmp_path, record(cache_bytes=1, planned_bytes=3)).drift
    assert [(d.integer, d.baseline, d.now) for d in drift] == [
        ("peak_bytes", 2, None),
        ("planned_bytes", None, 3),
    ]


def test_a_case_that_is_no_longer_claimed_drifts(tmp_path):
    stored(tmp_path, [record(cache_bytes=1)])
    (drift,) = compared(tmp_path, record(status="not-claimed")).drift
    assert drift.now is None


@pytest.mark.parametrize(
    "elsewhere",
    [{"device": "cuda"}, {"threads": 2}, {"versions": {"torch": "2.14.0"}}, {"dtype": "float64"}],
)
def test_elsewhere_there_is_no_baseline_and_no_drift(tmp_path, elsewhere):
    stored(tmp_path, [record(cache_bytes=1)])
    comparison = compared(tmp_path, record(cache_bytes=2, **elsewhere))
    assert comparison.drift == []
    assert len(comparison.unknown) == 1


def test_the_build_of_a_version_is_no_part_of_the_key(tmp_path):
    stored(tmp_path, [record(cache_bytes=1, versions={"torch": "2.13.0+cpu"})])
    other = record(cache_bytes=1, versions={"torch": "2.13.0+cu130"})
    assert compared(tmp_path, other).unknown == []


def test_a_record_without_integers_needs_no_baseline(tmp_path):
    assert compared(tmp_path, record()).unknown == []


def test_where_a_known_failure_begins_is_not_kept_here(tmp_path):
    stored(tmp_path, [record(status="known", known="B1", first_bad=12)])
    assert not list(tmp_path.glob("uniform.csv"))
    moved = record(status="known", known="B1", first_bad=13)
    assert compared(tmp_path, moved) == Comparison()


def test_an_update_leaves_every_other_row_as_it_was(tmp_path):
    a, b, c = cases("chunk-4", "chunk-5", "chunk-6")
    stored(tmp_path, run_of({a: 1, b: 2, c: 3}))
    before = (tmp_path / "uniform.csv").read_text(encoding="utf-8").splitlines()
    done = stored(tmp_path, run_of({b: 20}))
    after = (tmp_path / "uniform.csv").read_text(encoding="utf-8").splitlines()
    assert (done.added, done.changed, done.dropped) == (0, 1, 0)
    assert sum(x != y for x, y in zip(before, after, strict=True)) == 1


def test_an_update_without_drift_touches_no_file(tmp_path):
    stored(tmp_path, [record(cache_bytes=1)])
    rows = read(tmp_path)
    rows.update(to_frame([record(cache_bytes=1)]))
    assert write(rows, tmp_path) == []


@pytest.mark.parametrize("status", ["fail", "error", "fixed", "missing"])
def test_an_update_refuses_what_broke(tmp_path, status):
    stored(tmp_path, [record(cache_bytes=1)])
    done = stored(tmp_path, [record(status=status, cache_bytes=2)])
    assert [r.status for r in done.refused] == [status]
    assert read(tmp_path).of(record()) == {"cache_bytes": 1}


def test_rows_of_cases_that_are_gone_drop_with_a_whole_run_only(tmp_path):
    a, b = cases("chunk-4", "chunk-5")
    stored(tmp_path, run_of({a: 1, b: 2}))
    assert stored(tmp_path, run_of({a: 1})).dropped == 0
    assert stored(tmp_path, run_of({a: 1}), whole=True).dropped == 1
    assert read(tmp_path).of(record(case=b)) is None


def test_rows_of_subjects_and_devices_that_did_not_run_stay(tmp_path):
    gpu = record(device="cuda", cache_bytes=1, case=cases("chunk-9")[0])
    stored(tmp_path, [gpu, record(subject="theirs", cache_bytes=2)])
    assert stored(tmp_path, [record(cache_bytes=3), ABSENT], whole=True).dropped == 0


def test_every_row_of_a_subject_without_any_record_drifts_in_a_whole_run_only(tmp_path):
    a, b = cases("chunk-4", "chunk-5")
    stored(tmp_path, [*run_of({a: 1, b: 2}, subject="theirs"), record(cache_bytes=3)])
    ours = record(cache_bytes=3)
    assert compared(tmp_path, ours).drift == []
    drift = compared(tmp_path, ours, whole=True).drift
    assert [(d.subject, d.case, d.now) for d in drift] == [("theirs", a, None), ("theirs", b, None)]
    assert str(drift[0]).endswith("cache_bytes 1 -> none (vanished)")
    assert compared(tmp_path, ours, ABSENT, whole=True).drift == []
    assert stored(tmp_path, [ours], whole=True).dropped == 2
    assert compared(tmp_path, ours, whole=True).drift == []


@pytest.mark.parametrize(
    "elsewhere", [{"device": "cuda"}, {"threads": 2}, {"versions": {"torch": "2.14.0"}}]
)
def test_a_subject_that_is_gone_has_not_vanished_elsewhere(tmp_path, elsewhere):
    stored(tmp_path, [record(subject="theirs", cache_bytes=2)])
    assert compared(tmp_path, record(**elsewhere), whole=True).drift == []


def test_a_subject_that_is_gone_vanished_unless_its_package_ran_at_another_version(tmp_path):
    gone = {"torch": "2.13.0", "theirs": "1.0"}
    stored(tmp_path, [record(subject="theirs", cache_bytes=2, versions=gone)])
    sibling = record(subject="sibling", versions=gone | {"theirs": "1.1"})
    assert len(compared(tmp_path, record(), whole=True).drift) == 1
    assert compared(tmp_path, record(), sibling, whole=True).drift == []


def test_a_record_that_is_missing_drops_no_row(tmp_path):
    a, b = cases("chunk-4", "chunk-5")
    stored(tmp_path, run_of({a: 1, b: 2}))
    lost = record(case=b, status="missing", device="", threads=None, versions={})
    assert stored(tmp_path, [*run_of({a: 1}), lost], whole=True).dropped == 0


def test_a_row_whose_case_vanished_drifts_in_a_whole_run_only(tmp_path):
    a, b = cases("chunk-4", "chunk-5")
    stored(tmp_path, run_of({a: 1, b: 2}))
    assert compared(tmp_path, *run_of({a: 1})).drift == []
    (drift,) = compared(tmp_path, *run_of({a: 1}), whole=True).drift
    assert (drift.case, drift.baseline, drift.now) == (b, 2, None)


def test_branches_that_change_neighbouring_rows_merge(tmp_path):
    a, b = cases("chunk-4", "chunk-5")
    texts = {}
    for branch, numbers in {"base": (1, 1), "ours": (2, 1), "theirs": (1, 2)}.items():
        folder = tmp_path / branch
        folder.mkdir()
        stored(folder, run_of(dict(zip((a, b), numbers, strict=True))))
        texts[branch] = folder / "uniform.csv"
    merge = ["git", "merge-file", "-p", *(str(texts[b]) for b in ("ours", "base", "theirs"))]
    merged = subprocess.run(merge, capture_output=True, text=True, check=False)
    assert merged.returncode == 0
    (tmp_path / "uniform.csv").write_text(merged.stdout, encoding="utf-8")
    assert compared(tmp_path, *run_of({a: 2, b: 2})).drift == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("1024", "1024.5", "cache_bytes must be an integer"),
        ("1024", "-1", "cache_bytes must be an integer"),
        ("1024", "²", "cache_bytes must be an integer"),
        ("1024", "1" * 5000, "cache_bytes must be an integer"),
        ("1024", '"' + "x" * 200_000, "line 3: field larger"),
        ("subject,", "name,", "header"),
        ("\n\n", "\n<<<<<<< ours\n", "1 columns"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path, old, new, expected):
    stored(tmp_path, [record(cache_bytes=1024)])
    path = tmp_path / "uniform.csv"
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(BaselineError, match=expected) as caught:
        read(tmp_path)
    assert "uniform.csv" in str(caught.value)


@pytest.mark.parametrize("name", ["uniform.csv", "claims.csv"])
def test_a_file_that_is_no_text_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xff\xfe")
    with pytest.raises(BaselineError, match=f"{name} is not UTF-8"):
        read(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(BaselineError, match=f"{name} cannot be read"):
        read(tmp_path)
    (tmp_path / name).rmdir()
    (tmp_path / name).touch()
    with pytest.raises(BaselineError, match=f"{name}: the header must read subject"):
        read(tmp_path)


def test_a_second_row_of_one_key_is_refused(tmp_path):
    stored(tmp_path, [record(cache_bytes=1024)])
    path = tmp_path / "uniform.csv"
    text = path.read_text(encoding="utf-8")
    path.write_text(text + text.splitlines()[-1] + "\n", encoding="utf-8")
    with pytest.raises(BaselineError, match="second row"):
        read(tmp_path)


def test_a_scheme_without_rows_has_no_file(tmp_path):
    a, b = cases("chunk-4", "chunk-5")
    stored(tmp_path, [record(case=a, cache_bytes=1, scheme="sink")])
    stored(tmp_path, [record(case=b, cache_bytes=2)], whole=True)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["claims.csv", "uniform.csv"]


def test_no_folder_is_no_baseline(tmp_path):
    assert compared(tmp_path / "none", record(cache_bytes=1)).drift == []
    assert Baselines().of(record()) is None
