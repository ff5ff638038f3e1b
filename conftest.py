"""What the tests in this checkout share: the environment, fixtures, versions in the header.

The matrix is not made here: harness/run/plugin.py, a pytest plugin that other projects load too,
turns each suite into one item per subject, check and case.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

# Before torch is imported: byte counts and equal bits need one thread, and no test may download.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest_plugins = ["pytester"]

#: What the header of a run names: a report of a failure starts with these versions.
CHECKED = ("coremltools", "executorch", "flash-attn", "mlx", "mlx-lm", "transformers", "xllamacpp")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Load the plugin where the package is not installed, so that no entry point names it."""
    del parser
    from harness.run import plugin

    if not pluginmanager.is_registered(plugin):
        pluginmanager.register(plugin, "harness")


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of our own tests."""
    config.addinivalue_line(
        "markers", "needs(*modules): skip where one of these optional modules is not installed."
    )


def pytest_report_header() -> list[str]:
    """Versions of torch and of the packages that are checked, and which of them are absent."""
    versions = {name: _version(name) for name in ("torch", *CHECKED)}
    here = ", ".join(f"{name} {found}" for name, found in versions.items() if found)
    absent = ", ".join(name for name, found in versions.items() if not found)
    return [f"checked: {here}", *([f"not installed: {absent}"] if absent else [])]


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


@pytest.hookimpl(tryfirst=True)  # before any fixture is made
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a module that is absent; one that is there and broken is an error."""
    for marker in item.iter_markers("needs"):
        for module in marker.args:
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Equal bits need equal sums: no split of them among threads."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fresh_references() -> Iterator[None]:
    """References and bounds that no other test has computed, and that none finds afterwards."""
    from harness.checks import bounds

    bounds.forget()
    yield
    bounds.forget()


@pytest.fixture
def run_harness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `harness` with these arguments in an empty folder: (exit status, stdout, stderr)."""
    from harness.cli import main as cli

    monkeypatch.chdir(tmp_path)

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["harness", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with one suite, and the subjects bad.py and mine.py."""
    from subject_files import BAD, GOOD, lay_out

    import harness.run.job  # noqa: F401 - runs in this process must not import torch once more

    return lay_out(pytester, bad=BAD, mine=GOOD)


@pytest.fixture
def run_suites(pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run the suites in pytester's folder on one subject, part of the matrix alone."""
    import harness.run.job  # noqa: F401 - as above

    def run(
        subject: str,
        *args: object,
        select: str,
        suites: str = "suites",
        runner: str = "runpytest_inprocess",
    ) -> pytest.RunResult:
        chosen = [suites, f"--subject={subject}", "-k", select, "-p", "no:cacheprovider"]
        return getattr(pytester, runner)(*chosen, *args)

    return run
