"""What broke last runs first, then quick subjects; time left is told; losing the memory is free."""

from __future__ import annotations

from functools import partial

import pytest

from harness.results.folder import Folder
from harness.run import order
from harness.run.order import Estimate, Last, ordered

SELECT = "(visibility or values) and mistral/prefill and not then and float32/b1"


def in_order(names: list[str], last: Last) -> list[str]:
    return ordered(names, lambda name: name, lambda name: tuple(name.split("/")[:-1]), last)


def test_what_broke_comes_first_and_then_the_quickest_subject() -> None:
    names = ["p/a/1", "p/a/2", "p/b/1", "p/b/2", "q/c/1"]
    assert in_order(names, Last()) == names
    seconds = dict(zip(names, (1.0, 9.0, 2.0, 0.5, 3.0), strict=True))
    last = Last(seconds, {"p/b/2"})
    assert in_order(names, last) == ["p/b/2", "q/c/1", "p/b/1", "p/a/1", "p/a/2"]


def test_subjects_of_a_package_stay_together() -> None:
    names = ["p/a/1", "q/c/1", "p/b/1", "p/a/2"]
    assert in_order(names, Last()) == ["p/a/1", "p/a/2", "p/b/1", "q/c/1"]
    slow = Last({"p/a/1": 9.0, "p/b/1": 0.1, "q/c/1": 1.0})
    assert in_order(names, slow) == ["q/c/1", "p/b/1", "p/a/1", "p/a/2"]


def test_time_left_follows_from_what_is_known_of_each_item() -> None:
    now = [0.0]
    told = Estimate("abcd", Last({"a": 1.0, "b": 1.0, "c": 1.0, "d": 7.0}), lambda: now[0])
    assert told.line(0) == ""
    told.done("a")
    now[0] = 2.0
    assert told.line(0) == "1 of 4 checks, about 18 s left"
    now[0] = 4.0
    told.done("b")
    assert told.line(5) == ""
    now[0] = 8.0
    assert told.line(5) == "2 of 4 checks, about 32 s left"
    told.done("c")
    told.done("d")
    assert told.line(0) == ""


def test_an_unknown_item_counts_as_the_mean_of_the_others() -> None:
    now = [0.0]
    told = Estimate("ab", Last({"a": 60.0}), lambda: now[0])
    told.done("a")
    now[0] = 180.0
    assert told.line(0) == "1 of 2 checks, about 3 min left"


@pytest.mark.parametrize(
    "held", ["{}", "[]", '{"seconds": 3, "broken": 4}', '{"seconds": {"a": "x"}, "broken": [1]}']
)
def test_a_damaged_memory_is_no_memory(pytester: pytest.Pytester, held: str) -> None:
    folder = pytester.path / ".pytest_cache" / "v" / "harness"
    folder.mkdir(parents=True)
    (folder / "last").write_text(held)
    assert order.read(pytester.parseconfigure()) == Last()


@pytest.fixture
def run(project):
    chosen = ["suites", "--subject=bad.py:Narrow", "-n0", "-q", "-k", SELECT]
    return partial(project.runpytest_inprocess, *chosen)


def ran(project) -> list[str]:
    return [r.item for r in Folder(project.path / "reports" / "latest").read_records()]


def test_a_run_starts_with_what_broke_in_the_one_before(project, run) -> None:
    run()
    first = ran(project)
    broken = [
        r.item
        for r in Folder(project.path / "reports" / "latest").read_records()
        if r.status == "fail"
    ]
    assert 0 < len(broken) < len(first)
    assert first[: len(broken)] != broken
    run()
    assert ran(project)[: len(broken)] == broken
    assert sorted(ran(project)) == sorted(first)
    collected = Folder(project.path / "reports" / "latest").read_collected()
    assert [item.item for item in collected] == first


def test_the_plan_s_order_holds_without_a_cache(project, run) -> None:
    run("-p", "no:cacheprovider")
    first = ran(project)
    run("-p", "no:cacheprovider")
    assert ran(project) == first
