"""Kinds of failure: by subject, check, kind and status, in the order in which they appear."""

from gate_data import record

from harness.results.groups import KIND, kinds, leaders_first
from harness.results.record import rows, to_frame


def broken(*changes):
    """A frame of failures with these changes, named by their number."""
    made = ({"status": "fail", "item": str(i)} | change for i, change in enumerate(changes))
    return to_frame(record(**fields) for fields in made)


def test_each_column_of_a_kind_sets_failures_apart():
    others = {"subject": "theirs", "check": "reset", "kind": "lost", "status": "error"}
    assert set(others) == set(KIND)
    for name, value in others.items():
        found = kinds(broken({}, {name: value}, {}))
        assert [(k.first.item, k.size) for k in found] == [("0", 2), ("1", 1)]


def test_what_differs_otherwise_is_one_kind():
    found = kinds(broken({"message": "a"}, {"message": "b", "case": "other", "first_bad": 3}))
    assert [k.size for k in found] == [2]


def test_kinds_are_in_the_order_in_which_they_appear():
    frame = broken({"check": "z"}, {"check": "a"}, {"check": "z"}, {"check": "m"})
    assert [k.first.check for k in kinds(frame)] == ["z", "a", "m"]


def test_the_first_of_each_kind_leads_and_the_rest_keep_their_order():
    frame = broken({}, {}, {"check": "reset"}, {}, {"check": "reset"}, {"kind": "lost"})
    led = leaders_first(frame)
    assert [row.item for row in rows(led)] == ["0", "2", "5", "1", "3", "4"]
    assert list(led.columns) == list(frame.columns)


def test_of_nothing_there_is_no_kind():
    empty = to_frame([])
    assert kinds(empty) == []
    assert leaders_first(empty).empty
