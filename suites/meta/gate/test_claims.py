"""What a subject claims is counted, and a count that differs is told, either way."""

import pytest
from gate_data import record

from harness.gate.baselines import read, write
from harness.results.record import to_frame

CASES = [f"mistral/chunk-{n}/float32/b1" for n in (4, 5, 6)]
ABSENT = record(status="not-installed", case="", check="load", device="", versions={})


def run_of(*statuses, **changes):
    """One record per status, each of another case, without integers."""
    pairs = zip(CASES, statuses, strict=False)
    return [record(case=case, status=status, **changes) for case, status in pairs]


def stored(folder, records, whole=True):
    rows = read(folder)
    done = rows.update(to_frame(records), whole=whole)
    write(rows, folder)
    return done


def drift(folder, records, whole=True):
    return [str(d) for d in read(folder).compare(to_frame(records), whole=whole).drift]


def test_a_pass_that_is_no_longer_claimed_drifts(tmp_path):
    stored(tmp_path, run_of("pass", "pass", "known"))
    assert drift(tmp_path, run_of("pass", "pass", "known")) == []
    now = run_of("pass", "not-claimed", "known")
    assert drift(tmp_path, now) == ["ours values: claims 2 of 3 cases, the baseline 3 (-1)"]


def test_a_claim_that_is_new_drifts(tmp_path):
    stored(tmp_path, run_of("not-claimed", "pass"))
    now = run_of("pass", "pass")
    assert drift(tmp_path, now) == ["ours values: claims 2 of 2 cases, the baseline 1 (+1)"]


def test_a_check_that_is_new_or_gone_drifts(tmp_path):
    stored(tmp_path, run_of("pass"))
    now = run_of("pass", check="reset")
    assert drift(tmp_path, now) == [
        "ours reset: claims 1 of 1 cases, the baseline 0 (+1)",
        "ours values: claims 0 of 0 cases, the baseline 1 (vanished)",
    ]


def test_a_check_of_which_nothing_is_claimed_drifts_when_it_is_gone(tmp_path):
    stored(tmp_path, [*run_of("pass"), *run_of("not-claimed", check="reset")])
    assert len(drift(tmp_path, run_of("pass"))) == 1


def test_a_subject_that_is_gone_drifts_unless_it_is_not_installed(tmp_path):
    stored(tmp_path, [*run_of("pass"), *run_of("pass", subject="theirs")])
    others = run_of("pass", subject="theirs")
    assert drift(tmp_path, others) == [
        "ours values: claims 0 of 0 cases, the baseline 1 (vanished)"
    ]
    assert drift(tmp_path, [*others, ABSENT]) == []


def test_a_part_of_a_run_is_neither_compared_nor_taken_over(tmp_path):
    stored(tmp_path, run_of("pass", "pass"))
    assert drift(tmp_path, run_of("pass"), whole=False) == []
    assert stored(tmp_path, run_of("pass"), whole=False).claims == 0
    assert drift(tmp_path, run_of("pass", "pass")) == []


@pytest.mark.parametrize(
    "elsewhere", [{"device": "cuda"}, {"threads": 2}, {"versions": {"torch": "2.14.0"}}]
)
def test_elsewhere_there_is_nothing_to_compare(tmp_path, elsewhere):
    stored(tmp_path, run_of("pass", "pass"))
    assert drift(tmp_path, run_of("pass", **elsewhere)) == []


def test_an_update_takes_the_counts_over_and_drops_what_is_gone(tmp_path):
    stored(tmp_path, [*run_of("pass", "pass"), *run_of("pass", check="reset")])
    assert stored(tmp_path, run_of("pass", "not-claimed")).claims == 2
    assert drift(tmp_path, run_of("pass", "not-claimed")) == []
    text = (tmp_path / "claims.csv").read_text(encoding="utf-8").splitlines()
    assert text == [
        "subject,check,device,threads,versions,claimed,claimed_short",
        "",
        "ours,values,cpu,1,torch=2.13.0,1,",
    ]


@pytest.mark.parametrize("status", ["error", "missing"])
def test_a_case_that_broke_before_it_told_leaves_the_count(tmp_path, status):
    stored(tmp_path, run_of("pass", "not-claimed"))
    assert stored(tmp_path, run_of("pass", status)).claims == 0
    assert drift(tmp_path, run_of("pass", "not-claimed")) == []


@pytest.mark.parametrize("status", ["error", "missing"])
def test_what_broke_is_no_claim_that_drifted(tmp_path, status):
    """Such a case is red by itself, and whether it is claimed is not known."""
    stored(tmp_path, run_of("pass", "not-claimed"))
    assert drift(tmp_path, run_of("pass", status)) == []
    assert drift(tmp_path, run_of("not-claimed", status)) == []
    assert len(drift(tmp_path, run_of("not-claimed", "not-claimed"))) == 1


def test_a_record_that_is_missing_is_filed_where_its_subject_ran(tmp_path):
    stored(tmp_path, run_of("pass", "pass"))
    lost = record(case=CASES[1], status="missing", device="", threads=None, versions={})
    assert drift(tmp_path, [*run_of("pass"), lost]) == []
