"""What `harness check` explains: one fault once, a limit apart from a crash, messages whole."""

from __future__ import annotations

import io

import pytest
from gate_data import CASE, record
from rich.console import Console

from harness.report import terminal
from harness.report.explain import HINT
from harness.results.record import Record

MASK = "breaks the contract: update() must return a bool mask ({0}, {0}), got torch.float32 ({0},)"


def shown(*records: Record, stopped: str = "") -> str:
    out = io.StringIO()
    console = Console(file=out, width=140, highlight=False)
    terminal.show(console, "ours 1.0", records, stopped=stopped)
    return out.getvalue()


def broken(message: str, kind: str = "contract-broken", **changes: object) -> Record:
    status = "error" if kind == "raised" else "fail"
    return record(status=status, kind=kind, message=message, **changes)


def test_what_every_check_says_is_told_once() -> None:
    checks = ("visibility", "values", "reset")
    said = shown(*(broken(MASK.format(n), check=check) for n in (7, 8) for check in checks))
    assert "all 6 broken checks: the same" in said
    assert said.count("got torch.float32") == 1
    assert "and 5 more that say the same, in visibility, values, reset" in said
    assert "Broken" not in said  # no table


def test_what_differs_by_more_than_numbers_is_told_apart() -> None:
    said = shown(broken(MASK.format(7)), broken("breaks the contract: update() must return"))
    assert "the same" not in said
    assert said.count("breaks the contract") == 2


def test_a_limit_is_told_apart_from_a_crash() -> None:
    limits = ("prompt of 57 exceeds 32", "chunks longer than 4", "float64 is not supported")
    said = shown(*(broken(f"ValueError: {text}", "raised") for text in limits))
    assert said.count(HINT) == len(limits)
    assert said.count("refuses") == len(limits)
    crash = shown(broken("IndexError: index 9 is out of bounds (mine.py:3)", "raised"))
    assert HINT not in crash
    assert "broke " in crash
    assert HINT not in shown(broken("query 8 exceeds", "lost-keys"))


def test_one_check_is_told_in_full() -> None:
    long = "; ".join(f"query {n} lost [{n - 8}]" for n in range(8, 90))
    one = broken(long, "lost-keys")
    assert long in shown(one)
    several = shown(one, record(check="reset"))
    assert long not in several
    assert f"--case {CASE} --check values\n  (cut here; this command shows all of it)" in several


@pytest.mark.parametrize(
    ("records", "stopped", "last"),
    [
        ([record()], "", "ours 1.0: 1 check holds"),
        ([record(), record(check="reset")], "", "ours 1.0: all 2 checks hold"),
        ([record()], "interrupted, 9 not run", "ours 1.0: 1 check holds; interrupted, 9 not run"),
        (
            [broken("x", "lost-keys"), record()],
            "stopped at 1 broken, 3 not run",
            "ours 1.0: 1 of 2 checks broken; stopped at 1 broken, 3 not run",
        ),
    ],
)
def test_the_last_line(records: list[Record], stopped: str, last: str) -> None:
    assert shown(*records, stopped=stopped).strip().splitlines()[-1] == last
