"""Groups of failures: by subject, check, kind and status, in the order in which they appear."""

from gate_data import record

from harness.results.groups import KEY, groups, leaders_first
from harness.results.record import rows, to_frame


def broken(*changes):
    """A frame of failures, one for each set of changed fields; its index is the item."""
    made = ({"status": "fail", "item": str(i)} | change for i, change in enumerate(changes))
    return to_frame(record(**fields) for fields in made)


def test_each_column_of_the_key_sets_failures_apart():
    others = {"subject": "theirs", "kind": "lost", "status": "error", "exception": "TypeError"}
    assert set(others) == set(KEY)
    others["check"] = "reset"  # of checks that failed
    for name, value in others.items():
        found = groups(broken({}, {name: value}, {}))
        assert [(g.first.item, g.size) for g in found] == [("0", 2), ("1", 1)]


def test_an_exception_or_a_lost_record_is_one_group_over_all_checks():
    for status in ("error", "missing"):
        (group,) = groups(broken({"status": status}, {"status": status, "check": "reset"}))
        assert (group.size, group.checks) == (2, "values, reset")


def test_dtypes_are_named_where_they_break_in_different_ways():
    half = {"dtype": "float16", "kind": "not-finite"}
    whole, split = groups(broken({}, {"dtype": "bfloat16"}, half))
    assert (whole.where, split.where) == (" in float32 and bfloat16", " in float16")
    assert [g.where for g in groups(broken({}, {"kind": "not-finite"}, half))] == ["", ""]
    assert [g.where for g in groups(broken({}, {"dtype": "float16"}))] == [""]


def test_what_differs_otherwise_is_one_group():
    found = groups(broken({"message": "a"}, {"message": "b", "case": "other", "first_bad": 3}))
    assert [g.size for g in found] == [2]


def test_groups_are_in_the_order_in_which_they_appear():
    frame = broken({"check": "z"}, {"check": "a"}, {"check": "z"}, {"check": "m"})
    assert [g.first.check for g in groups(frame)] == ["z", "a", "m"]


def test_the_first_of_each_group_leads_and_the_rest_keep_their_order():
    frame = broken({}, {}, {"check": "reset"}, {}, {"check": "reset"}, {"kind": "lost"})
    led = leaders_first(frame)
    assert [row.item for row in rows(led)] == ["0", "2", "5", "1", "3", "4"]
    assert list(led.columns) == list(frame.columns)


def test_of_nothing_there_is_no_group():
    empty = to_frame([])
    assert groups(empty) == []
    assert leaders_first(empty).empty
