"""A fresh checkout whose package is not installed: `pytest suites/` works with pytest and torch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import harness
from harness.results.folder import Folder
from harness.run import registry

ROOT = Path(__file__).parents[3]

#: Python reads this when it starts, in workers too: it hides the installed distribution.
HIDE = """
import sys
from importlib import metadata

found = metadata.Distribution.discover


def discover(**context):
    return (d for d in found(**context) if d.metadata["Name"] != "attention-harness")


metadata.Distribution.discover = discover
sys.meta_path[:] = [f for f in sys.meta_path if "__editable__" not in getattr(f, "__module__", "")]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that `pytest suites/` reads, in another folder."""
    copied = tmp_path / "checkout"
    for name in ("harness", "suites"):
        unneeded = shutil.ignore_patterns("__pycache__", "meta")
        shutil.copytree(ROOT / name, copied / name, ignore=unneeded)
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, copied)
    return copied


def run(checkout: Path, *args: str) -> str:
    """Output of pytest in a checkout, by a Python in which the package is not installed."""
    start = checkout.parent / "start"
    start.mkdir()
    (start / "sitecustomize.py").write_text(HIDE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *args],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(start)},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_suites_run_where_the_package_is_not_installed(checkout: Path) -> None:
    """Plugin, options, workers and registered subjects come from the checkout."""
    select = "gemma4-26b/prefill-w/float32/b1 and values"
    said = run(checkout, "suites/", "-n1", "-k", select, "--subject=harness.sdpa")
    assert "1 worker " in said
    assert "checked: torch " in said
    records = Folder(checkout / "reports" / "latest").read_records()
    assert {r.subject for r in records} == {"harness.sdpa"}, said
    assert {r.status for r in records} == {"pass"}
    assert {r.subject_version for r in records} == {harness.__version__}


def test_subjects_are_those_that_an_installation_registers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Here only the checkout's file is read: no distribution is found."""
    installed = registry.names()
    monkeypatch.setattr(registry.metadata.Distribution, "discover", lambda **_: iter(()))
    registry._entry_points.cache_clear()
    try:
        assert registry.names() == installed
        assert registry.load("harness.full").name == "harness.full"
    finally:
        registry._entry_points.cache_clear()


def test_the_plugin_is_registered_once(pytestconfig: pytest.Config) -> None:
    from harness.run import plugin

    names = [name for name, it in pytestconfig.pluginmanager.list_name_plugin() if it is plugin]
    assert names == ["harness"]


def test_the_version_is_one() -> None:
    table = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert table["project"]["version"] == harness.__version__
