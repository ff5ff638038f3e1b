"""The index of the tests, suites/meta/README.md: one line a file, which is its docstring.

`python suites/meta/support/index.py` writes it again.
"""

from __future__ import annotations

import ast
from itertools import groupby
from pathlib import Path

META = Path(__file__).parents[1]
README = META / "README.md"

HEAD = """\
# Tests of the tester

`tox -e tests` runs them, `pytest suites/meta/gate` a part. Folders mirror those of `harness/`, and
`support/` holds what several tests share. Fixtures stand in the `conftest.py` at the top, and those
of one folder in its own.
This page is written by `python suites/meta/support/index.py`, from the files' first lines.
"""


def says(path: Path) -> str:
    """The first paragraph of a file's docstring as one line, "" without one."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def index(meta: Path = META) -> str:
    """The page: a heading for each folder, a line for each file of tests or helpers."""
    files = [*meta.rglob("test_*.py"), *(meta / "support").glob("*.py")]
    pages = [HEAD]
    by_folder = sorted(files, key=lambda path: (path.parent.relative_to(meta).parts, path.name))
    for folder, inside in groupby(by_folder, key=lambda path: path.parent):
        name = folder.relative_to(meta).as_posix()
        lines = [
            f"- [{path.stem}]({path.relative_to(meta).as_posix()}): {says(path)}\n"
            for path in inside
        ]
        pages.append(f"\n## {'suites/meta' if name == '.' else name}\n\n{''.join(lines)}")
    return "".join(pages)


if __name__ == "__main__":
    README.write_text(index(), encoding="utf-8")
