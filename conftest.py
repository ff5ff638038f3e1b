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

# Set before torch is imported: byte counts and equal bits need one thread; no test may download.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

pytest_plugins = ["pytester"]

#: Packages in a run's header: the report of a failure starts with their versions.
CHECKED = ("coremltools", "executorch", "flash-attn", "mlx", "mlx-lm", "transformers", "xllamacpp")


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Load the plugin if the package is not installed, since no entry point then names it."""
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
    """Versions of torch and of the packages that are checked, and which are not installed."""
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
    """Skip a test that needs a missing module; one that is installed but broken is an error."""
    for marker in item.iter_markers("needs"):
        for module in marker.args:
            if importlib.util.find_spec(module) is None:
                pytest.skip(f"{module} is not installed")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread: sums are not split among threads, so equal runs give equal bits."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def fresh_references() -> Iterator[None]:
    """Start without the references and bounds of other tests, and leave none to later ones."""
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


@pytest.fixture(scope="session")
def imported() -> None:
    """Import what runs in this process import: pytester forgets it after a test, torch loads once.

    Of a wider scope than pytester, so that it comes first.
    """
    import harness.checks
    import harness.run.job  # noqa: F401


@pytest.fixture
def project(imported: None, pytester: pytest.Pytester) -> pytest.Pytester:
    """A folder with one suite, and the subjects bad.py and mine.py."""
    del imported  # that it was made is enough
    from subject_files import BAD, GOOD, lay_out

    return lay_out(pytester, bad=BAD, mine=GOOD)


@pytest.fixture
def run_suites(imported: None, pytester: pytest.Pytester) -> Callable[..., pytest.RunResult]:
    """Run part of the matrix: the suites in pytester's folder, on one subject."""
    del imported  # as above

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
