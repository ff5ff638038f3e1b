"""What pytest's options say about a run: folder, time limit, suites, workers and shard."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.results.folder import Folder
from harness.results.recorder import Recorder

_TIMEOUT_S = 60.0
#: A day: timers do not take infinity, and a check that needs longer hangs.
_MAX_TIMEOUT_S = 86_400.0

recorder_key = pytest.StashKey[Recorder]()


def refuse_bad_options(config: pytest.Config) -> None:
    """Raise UsageError for options that would break a run half-way through."""
    out, limit = results_folder(config).path, time_limit(config)
    if out.exists() and not out.is_dir():
        raise pytest.UsageError(f"--harness-out: {out} is not a folder")
    if not 0 < limit <= _MAX_TIMEOUT_S:  # neither holds for NaN
        raise pytest.UsageError(f"--timeout must be up to {_MAX_TIMEOUT_S:g} s, got {limit:g}")


def results_folder(config: pytest.Config) -> Folder:
    return Folder(Path(config.option.harness_out))


def time_limit(config: pytest.Config) -> float:
    """Seconds that a check may take: pytest-timeout's option where it is given."""
    given = config.getoption("timeout", None)
    return float(given) if given else _TIMEOUT_S


def suite_files(config: pytest.Config) -> list[Path]:
    return [path for folder in config.getini("harness_suites") for path in folder.glob("test_*.py")]


def suites_selected(config: pytest.Config) -> bool:
    """True if an argument names a suite file, a folder that holds one, or a test in one."""
    return bool(_selected(config))


def _selected(config: pytest.Config) -> list[Path]:
    """The suite files that the arguments name, by themselves or by a folder."""
    where = config.invocation_params.dir
    paths = [(where / arg.partition("::")[0]).resolve() for arg in config.args]
    return [f for f in suite_files(config) if any(f.is_relative_to(path) for path in paths)]


def runs_matrix(config: pytest.Config) -> bool:
    """True in the process that writes the results, if this session is to run conformance checks.

    Suites are told by their text, since the folder is taken before anything is collected: a test
    beside them that does not ask for the fixture must not cost the results of the last run.
    """
    option = config.option
    shows_only = ("collectonly", "showfixtures", "show_fixtures_per_test", "setupplan")
    if is_worker(config) or any(getattr(option, name, False) for name in shows_only):
        return False
    return bool(option.harness_subjects) or any(
        "conformance" in file.read_text(encoding="utf-8", errors="replace")
        for file in _selected(config)
    )


def takes_all(config: pytest.Config) -> bool:
    """True if the whole plan is to run, and not the short matrix alone.

    Who names a subject works on it, and wants all that is planned for it.
    """
    return bool(config.getoption("harness_all") or config.getoption("harness_subjects"))


def wants_workers(config: pytest.Config) -> bool:
    option = config.option
    return (
        config.pluginmanager.hasplugin("xdist")
        and not is_worker(config)
        and option.numprocesses is None
        and option.dist == "no"
        and not option.tx
        and not option.usepdb
        and not option.collectonly
        and suites_selected(config)
    )


def shard_name(config: pytest.Config) -> str:
    """ "2/4" where pytest-split is to run the second of four parts; "" where it is not used."""
    splits, group = (getattr(config.option, name, None) for name in ("splits", "group"))
    return f"{group}/{splits}" if splits and group else ""


def _worker_input(config: pytest.Config) -> dict[str, str] | None:
    """What the controller sent to this worker; None in a process that is not an xdist worker."""
    return getattr(config, "workerinput", None)


def is_worker(config: pytest.Config) -> bool:
    return _worker_input(config) is not None


def worker_id(config: pytest.Config) -> str:
    told = _worker_input(config)
    return "main" if told is None else told["workerid"]


def run_id(config: pytest.Config) -> str:
    told = _worker_input(config)
    return config.stash[recorder_key].info.run if told is None else told["harness_run"]
