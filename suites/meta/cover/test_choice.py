"""The choice meets every need that can be met, holds nothing in vain, and prefers what is cheap."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from harness.cover.choice import Candidate, choose


def made(case: str, needs: str, seconds: float = 1.0, **fields: object) -> Candidate:
    return Candidate("ours", "values", case, seconds, frozenset((n,) for n in needs), **fields)  # type: ignore[arg-type]


def names(chosen: list[Candidate]) -> set[str]:
    return {one.case for one in chosen}


@st.composite
def several(draw: st.DrawFn) -> list[Candidate]:
    each = st.tuples(st.text("abcdefgh", max_size=5), st.floats(0, 100), st.booleans())
    drawn = draw(st.lists(each, max_size=12))
    return [
        made(str(number), needs, seconds, claimed=claimed)
        for number, (needs, seconds, claimed) in enumerate(drawn)
    ]


@given(several())
def test_every_need_is_met_and_nothing_is_chosen_in_vain(candidates: list[Candidate]) -> None:
    needs = {need for one in candidates for need in one.needs}
    chosen = choose(candidates, needs)
    assert {need for one in chosen for need in one.needs} == needs
    for one in chosen:
        rest = {need for other in chosen if other is not one for need in other.needs}
        assert not one.needs <= rest


def test_one_that_shows_all_takes_the_place_of_two_unless_it_is_dearer() -> None:
    parts = [made("left", "ab"), made("right", "cd")]
    needs = {(n,) for n in "abcd"}
    assert names(choose([*parts, made("all", "abcd", 1.5)], needs)) == {"all"}
    assert names(choose([*parts, made("all", "abcd", 9.0)], needs)) == {"left", "right"}


def test_what_is_not_claimed_is_taken_only_where_nothing_else_shows_it() -> None:
    candidates = [made("no", "ab", 0.0, claimed=False), made("yes", "a")]
    assert names(choose(candidates, {("a",)})) == {"yes"}
    assert names(choose(candidates, {("a",), ("b",)})) == {"no"}


def test_a_second_program_is_lowered_only_for_what_the_first_does_not_show() -> None:
    candidates = [
        made("one", "ab", program="p"),
        made("two", "c", 5.0, program="p"),
        made("three", "c", program="q"),
        made("four", "d", program="q"),
    ]
    needs = {(n,) for n in "abc"}
    assert names(choose(candidates, needs, lowering=100)) == {"one", "two"}
    assert names(choose(candidates, needs | {("d",)}, lowering=100)) >= {"one", "four"}


def test_what_is_listed_today_is_kept_against_a_little_cheaper_one() -> None:
    old, new = made("old", "a", 1.0, listed=True), made("new", "a", 0.8)
    assert names(choose([old, new], {("a",)})) == {"old"}
    assert names(choose([old, made("far", "a", 0.1)], {("a",)})) == {"far"}


def test_what_is_fixed_stays_even_if_it_shows_nothing_alone() -> None:
    fixed = made("core", "a")
    assert names(choose([fixed, made("all", "ab", 0.1)], {("a",), ("b",)}, fixed=[fixed])) == {
        "core",
        "all",
    }
