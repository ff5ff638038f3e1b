"""Every command that the documentation shows is one that exists, with the options it is given."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from doc_pages import PAGES, ROOT, code_lines, inline, name_of

from harness.cli.main import app

_PROGRAMS = ("harness", "pytest", "tox", "python", "pip", "pre-commit")


def _commands(path: Path) -> list[tuple[str, bool]]:
    """(command, shown as a line to type) of a page."""
    text = path.read_text(encoding="utf-8")
    lines = [(line, True) for line in code_lines(text)]
    lines += [(code, False) for code in inline(text) if " " in code]
    found = []
    for line, typed in lines:
        for part in re.split(r"\s+&&\s+", line):
            program = part.split(maxsplit=1)[0].rpartition("/")[2] if part.split() else ""
            if program in _PROGRAMS and not part.startswith("pytest suites/ …"):
                found.append((part, typed))
    return found


SHOWN = [(name_of(path), *shown) for path in PAGES for shown in _commands(path)]


def problem(line: str, *, typed: bool) -> str:
    """What is wrong with a command; "" if it is one that can be given."""
    program, *arguments = shlex.split(line, comments=True)
    check = {"harness": _harness, "pytest": _pytest, "tox": _tox, "pip": _pip, "python": _python}
    name = program.rpartition("/")[2]
    return check[name](arguments, typed) if name in check else ""


def _harness(arguments: list[str], typed: bool) -> str:
    command: Any = typer.main.get_command(app)
    left = list(arguments)
    while left and left[0] in getattr(command, "commands", {}):
        command = command.commands[left.pop(0)]
    if not left and not typed:
        return "" if command is not typer.main.get_command(app) else "no such command"
    if hasattr(command, "commands") and left and not left[0].startswith("-"):
        return f"no command {left[0]}"
    unknown = [o for o in left if o.startswith("--") and o.split("=")[0] not in _options(command)]
    if unknown and not command.ignore_unknown_options:
        return f"no option {unknown[0]}"
    required = [p for p in command.params if p.required and p.param_type_name == "argument"]
    if typed and required and not left:
        return f"lacks {required[0].name}"
    takes = any(p.param_type_name == "argument" for p in command.params)
    if left and not left[0].startswith("-") and not takes and not command.allow_extra_args:
        return f"takes no argument, given {left[0]!r}"
    return ""


def _options(command: Any) -> set[str]:
    return {spelt for p in command.params for spelt in (*p.opts, *p.secondary_opts)} | {"--help"}


@cache
def _pytest_help() -> str:
    command = [sys.executable, "-m", "pytest", "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def _pytest(arguments: list[str], typed: bool) -> str:
    del typed
    for part in arguments:
        option = part.split("=")[0]
        if option.startswith("--") and option not in _pytest_help():
            return f"pytest has no option {option}"
        if part.startswith("suites") and not (ROOT / part).exists():
            return f"no {part}"
    return ""


def _tox(arguments: list[str], typed: bool) -> str:
    del typed
    file = configparser.ConfigParser()
    file.read(ROOT / "tox.ini")
    environments = {s.removeprefix("testenv:") for s in file.sections() if ":" in s}
    if "-e" not in arguments:
        return "runs no environment by name"
    name = arguments[arguments.index("-e") + 1]
    return "" if name in environments else f"no environment {name}"


def _pip(arguments: list[str], typed: bool) -> str:
    del typed
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for part in arguments:
        for extra in re.findall(r"\[([\w,-]+)\]", part):
            lost = set(extra.split(",")) - set(project["optional-dependencies"])
            if lost:
                return f"no extra {sorted(lost)}"
    return ""


def _python(arguments: list[str], typed: bool) -> str:
    del typed
    if arguments[:1] == ["-m"]:
        module = ROOT / Path(*arguments[1].split("."))
        there = module.with_suffix(".py").exists() or (module / "__main__.py").exists()
        return "" if there or not arguments[1].startswith("harness") else f"no {arguments[1]}"
    if arguments and arguments[0].endswith(".py"):
        return "" if (ROOT / arguments[0]).exists() else f"no {arguments[0]}"
    return ""


@pytest.mark.parametrize(("page", "line", "typed"), SHOWN)
def test_it_exists(page: str, line: str, typed: bool) -> None:
    assert not problem(line, typed=typed), f"{page}: {line}"


def test_the_pages_show_commands() -> None:
    programs = {line.split()[0].rpartition("/")[2] for _, line, _ in SHOWN}
    assert programs >= {"harness", "pytest", "tox", "python"}
    shown = {tuple(line.split()[1:3]) for _, line, _ in SHOWN if line.startswith("harness ")}
    names = {first for first, *_ in shown}
    assert names >= set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("harness verify x.py:A", "no command"),
        ("harness check x.py:A --nodel gemma3", "--nodel"),
        ("harness check", "lacks target"),
        ("harness baseline renew", "no command"),
        ("harness gate --hole", "--hole"),
        ("pytest suites/ --subjects x.py:A", "--subjects"),
        ("pytest suites/none.py", "suites/none.py"),
        ("tox -e gates", "gates"),
        ("pip install -e '.[subject]'", "subject"),
        ("python -m harness.mill", "harness.mill"),
        ("python docs/generator.py", "generator.py"),
    ],
)
def test_a_command_that_does_not_exist_is_seen(line: str, wrong: str) -> None:
    assert wrong in problem(line, typed=True)


def test_the_two_commands_are_as_they_were() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for environment in ("gate", "tests"):
        line = (
            "    python3 -m venv .venv && .venv/bin/pip install -q tox "
            f"&& .venv/bin/tox -e {environment}\n"
        )
        assert line in text
