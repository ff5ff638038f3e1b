"""The index of these tests is current, and every file of tests says in a line what it shows."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import index
import pytest

FILES = sorted(index.META.rglob("test_*.py"))


def test_the_index_is_current() -> None:
    text = index.README.read_text(encoding="utf-8")
    assert text == index.index(), "python suites/meta/support/index.py writes it again"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_in_a_line_what_it_shows(path: Path) -> None:
    assert 20 <= len(index.says(path)) <= 120


def test_names_of_files_are_unique() -> None:
    """pytest imports test files by their name alone."""
    suites = [*FILES, *index.META.parent.glob("test_*.py"), *(index.META / "support").glob("*.py")]
    assert [name for name, n in Counter(path.stem for path in suites).items() if n > 1] == []


def test_folders_are_those_of_the_tree() -> None:
    """A newcomer finds the tests of harness/gate/ in gate/, and those of docs/ in docs/."""
    root = index.META.parents[1]
    for folder in {path.parent.relative_to(index.META) for path in FILES}:
        assert (root / "harness" / folder).is_dir() or (root / folder).is_dir(), folder


def test_the_suites_are_the_matrix_and_the_headlines_alone() -> None:
    """Whatever else stands there would run with the matrix, and beside the gate."""
    for path in index.META.parent.glob("test_*.py"):
        if path.stem != "test_headlines":
            text = path.read_text(encoding="utf-8")
            assert text.count("def test_") == text.count("@pytest.mark.conformance(") == 1, path
