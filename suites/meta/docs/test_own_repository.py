"""What the documentation tells a maintainer outside this checkout works in an empty folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from doc_pages import ROOT, blocks

PAGE = ROOT / "docs" / "own-repository.md"
#: Both commands, from the Python of these tests.
SHIMS = f"""set -e
pytest() {{ "{sys.executable}" -m pytest -q -p no:cacheprovider "$@"; }}
harness() {{ "{sys.executable}" -m harness "$@"; }}
"""


def block(info: str, number: int = 0) -> str:
    found = [b.body for b in blocks(PAGE.read_text("utf-8")) if b.info == info]
    return found[number]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository as the page lays it out."""
    shutil.copy(ROOT / "examples" / "my_cache.py", tmp_path)
    (tmp_path / "test_conformance.py").write_text(block("python"))
    (tmp_path / "pytest.ini").write_text(block("ini"))
    return tmp_path


def sh(folder: Path, *scripts: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["bash", "-c", "\n".join([SHIMS, *scripts])]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_a_repository_of_its_own_has_a_gate_a_page_and_baselines(repository: Path) -> None:
    once = block("sh")
    done = sh(repository, once, block("sh", 1), "harness gate")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no baselines: no integer was compared" in done.stdout
    assert done.stdout.count("Green for a part") == 2
    assert done.stdout.rpartition("Green for a part")[2].count("0 drifted") == 0
    latest = repository / "reports" / "latest"
    for name in ("index.html", "summary.md", "comment.md", "junit.xml", "verdict.json"):
        assert (latest / name).stat().st_size
    assert list((repository / "reports" / "baselines").glob("uniform.csv"))


def test_a_cache_that_keeps_one_key_less_is_red_there(repository: Path) -> None:
    cache = repository / "my_cache.py"
    text = cache.read_text("utf-8")
    assert text.count("window + 1)") == 1
    cache.write_text(text.replace("window + 1)", "window + 2)"), "utf-8")
    first = block("sh").splitlines()
    done = sh(repository, f"{first[0]} -k 'mistral-w9 and chunk-4' || true", *first[1:])
    assert done.returncode == 1
    assert "Red: " in done.stdout
    assert "harness check my_cache.py:MyCache --case mistral-w9/chunk-4" in done.stdout


def test_a_source_distribution_holds_what_its_tests_and_pages_need(tmp_path: Path) -> None:
    """Made of a copy, since setuptools writes beside the sources."""
    copy = tmp_path / "copy"
    ignored = shutil.ignore_patterns(".*", "*.egg-info", "latest", "history", "build", "dist")
    shutil.copytree(ROOT, copy, ignore=ignored, symlinks=True)
    build = "from setuptools.build_meta import build_sdist; build_sdist('made')"
    subprocess.run([sys.executable, "-c", build], cwd=copy, check=True, capture_output=True)
    (archive,) = (copy / "made").glob("*.tar.gz")
    with tarfile.open(archive) as held:
        names = {name.partition("/")[2] for name in held.getnames()}
    for name in (
        "tox.ini",
        "constraints.txt",
        "conftest.py",
        "docs/law.md",
        "docs/matrix.svg",
        "docs/page_parts/results.py",
        "examples/my_cache.py",
        "suites/test_uniform_swa.py",
        "suites/known_failures/executorch.toml",
        "suites/meta/support/gate_data.py",
        "reports/baselines/uniform.csv",
        "harness/report/template.html.j2",
    ):
        assert name in names, name
    assert not [name for name in names if "__pycache__" in name]
