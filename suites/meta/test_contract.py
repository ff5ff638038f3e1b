"""Optional members stand in one table, and are read in one way."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.contract import OPTIONAL_MEMBERS, optional

HARNESS = Path(__file__).parents[2] / "harness"
NAMES = {member.name for member in OPTIONAL_MEMBERS}


def _calls(path: Path, *functions: str) -> list[tuple[int, str]]:
    """(line, literal) of calls of these functions whose second argument is a string."""
    return [
        (node.lineno, node.args[1].value)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in functions
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
        and isinstance(node.args[1].value, str)
    ]


def test_optional_members_are_read_by_optional_alone() -> None:
    strays = [
        f"{path.relative_to(HARNESS)}:{line}: {name}"
        for path in sorted(HARNESS.rglob("*.py"))
        for line, name in _calls(path, "getattr", "hasattr")
        if name in NAMES
    ]
    assert not strays


def test_every_member_of_the_table_is_read_somewhere() -> None:
    """One that is not would promise what nobody keeps."""
    read = {name for path in HARNESS.rglob("*.py") for _, name in _calls(path, "optional")}
    asked = {name for path in HARNESS.rglob("*.py") for name in _asked_of_targets(path)}
    assert read | asked == NAMES


def _asked_of_targets(path: Path) -> Iterator[str]:
    """Names in ``"name" in target.offers``, and what rows of the plan need or leave out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg in {"needs", "unless"}:
            yield ast.literal_eval(node.value)
        elif (
            isinstance(node, ast.Compare)
            and ast.unparse(node.comparators[0]).endswith(".offers")
            and isinstance(node.left, ast.Constant)
        ):
            yield node.left.value


def test_the_table_is_of_distinct_names_and_says_what_each_means() -> None:
    assert len(NAMES) == len(OPTIONAL_MEMBERS)
    assert all(m.of and m.form and m.meaning and m.name in m.form for m in OPTIONAL_MEMBERS)


def test_an_absent_member_is_its_default() -> None:
    bare = object()
    assert {m.name: optional(bare, m.name) for m in OPTIONAL_MEMBERS} == {
        m.name: m.default for m in OPTIONAL_MEMBERS
    }
    with pytest.raises(KeyError, match="profil"):
        optional(bare, "profil")
