"""The pytest plugin: conformance checks as items, their findings as outcomes, a record of each.

A suite is a thin file:

    @pytest.mark.conformance(schemes={"uniform", "full"})
    def test_conformance(conformance):
        conformance()

which becomes one item per subject, check and case of `harness.run.plan` under these schemes.
A subject that carries ``suite = "sliced_q"`` is run by the suite that says
``conformance(suite="sliced_q")``
and by no other.  The ini option ``harness_suites`` names the folders that hold suites, and beside
them ``known_failures``.

The plugin is loaded in every pytest run of its environment, so that nothing but the standard
library is imported here: torch comes with the first conformance test.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from harness.results import ended
from harness.results.folder import LATEST, Folder
from harness.results.record import Record
from harness.results.recorder import Recorder, announce, new_run_id
from harness.run.keeper import STATUS, Keeper, attach, describe

if TYPE_CHECKING:
    from harness.gate.known import Cause
    from harness.run.job import Job, Matrix

_WORKERS = 2
_TIMEOUT_S = 60.0
#: A day: timers take no infinity, and a check that needs longer hangs.
MAX_TIMEOUT_S = 86_400.0
#: A check that outlives its timeout by this factor is stuck where no signal reaches it.
_STUCK_FACTOR = 1.25

#: Outcomes counted apart from passes and skips: category, letter, word.
_APART = {
    "known": ("known", "k", ("KNOWN", {"yellow": True})),
    "not-claimed": ("not claimed", "n", ("NOT CLAIMED", {"yellow": True})),
    "not-installed": ("not installed", "i", ("NOT INSTALLED", {"yellow": True})),
}

_recorder_key = pytest.StashKey[Recorder]()
_matrix_key = pytest.StashKey["Matrix"]()
_problems_told_key = pytest.StashKey[bool]()
_deselected_key = pytest.StashKey[int]()
_planned_key = pytest.StashKey[list[pytest.Item]]()
_record_key = pytest.StashKey[Record]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options and ini settings of the harness."""
    group = parser.getgroup("harness", "conformance of attention and KV caches")
    group.addoption(
        "--subject",
        action="append",
        default=[],
        dest="harness_subjects",
        metavar="TARGET",
        help="Check this subject instead of all that are registered (repeatable): a registered "
        "name, package.module:Name or path/to/file.py:Name.",
    )
    group.addoption(
        "--harness-out",
        dest="harness_out",
        metavar="DIR",
        help=f"Folder for the records (default: {LATEST} in the root folder).",
    )
    parser.addini("harness_suites", "Folders that hold conformance suites.", type="paths")


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Give the suites two workers unless told otherwise: a crash must not take the session."""
    if _wants_workers(config):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any worker imports torch
        config.option.numprocesses = _WORKERS
        config.option.dist = "worksteal"
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse a bad --subject or known failure before anything runs."""
    config.addinivalue_line(
        "markers",
        "conformance(schemes, suite): run the plan of every subject under these schemes, or of "
        "those that name this suite as theirs.",
    )
    out = config.getoption("harness_out")
    place = config.invocation_params.dir / out if out else config.rootpath / LATEST
    config.option.harness_out = str(place.resolve())  # workers may start in another folder
    if _is_worker(config):
        return
    if config.getoption("harness_subjects") or _suites_selected(config):
        _refuse_bad_options(config)
    recorder = Recorder(_folder(config), new_run_id(), list(config.invocation_params.args))
    config.stash[_recorder_key] = recorder
    config.pluginmanager.register(Keeper(recorder, _time_limit(config)), "harness-keeper")
    if config.getoption("harness_subjects"):
        _matrix(config)
    elif _suites_selected(config):
        _known(config)


def _refuse_bad_options(config: pytest.Config) -> None:
    """Raise UsageError for options that would break a run in its middle."""
    out, limit = _folder(config).path, _time_limit(config)
    if out.exists() and not out.is_dir():
        raise pytest.UsageError(f"--harness-out: {out} is not a folder")
    if not 0 < limit <= MAX_TIMEOUT_S:  # neither holds for NaN
        raise pytest.UsageError(f"--timeout must be up to {MAX_TIMEOUT_S:g} s, got {limit:g}")


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a new worker which run it belongs to."""
    node.workerinput["harness_run"] = _run_id(node.config)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, Any] | None:
    """Count known, not claimed and not installed apart: none of them is a pass or a skip."""
    status = dict(getattr(report, "user_properties", ())).get(STATUS)
    return _APART.get(str(status)) if report.skipped else None


# --- collection, in the process that runs the tests ------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per subject, check and case."""
    marker = metafunc.definition.get_closest_marker("conformance")
    if "conformance" in metafunc.fixturenames and marker is not None:
        matrix = _matrix(metafunc.config)
        jobs = matrix.jobs(**marker.kwargs)
        if not metafunc.config.stash.get(_problems_told_key, False):
            # The first suite reports the subjects that cannot run: one record each is enough.
            jobs += matrix.problems()
            metafunc.config.stash[_problems_told_key] = True
        metafunc.parametrize("conformance", jobs, ids=[job.id for job in jobs], indirect=True)


@pytest.hookimpl(trylast=True)  # after -k and -m, before pytest-split takes its part
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the empty item of a suite that no subject has a case for; set the time limits."""
    items[:] = [item for item in items if not _is_empty(item)]
    if config.pluginmanager.hasplugin("timeout"):
        limit = pytest.mark.timeout(_time_limit(config), method="signal")
        for item in items:
            if _job(item) is not None:
                item.add_marker(limit)
    if _shard(config):
        config.stash[_planned_key] = list(items)


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count what a selection leaves out: a run that leaves out nothing is whole.

    What is left to other shards of the run is not left out.
    """
    for item in items:
        if _job(item) is not None and _planned_key not in item.config.stash:
            item.config.stash[_deselected_key] = item.config.stash.get(_deselected_key, 0) + 1


@pytest.hookimpl(tryfirst=True)  # before xdist tells the controller that it may begin
def pytest_collection_finish(session: pytest.Session) -> None:
    """Say what is to run, before any of it does."""
    config = session.config
    collected = _planned(config, session.items)
    if not collected or config.option.collectonly:
        return
    announce(
        _folder(config),
        _run_id(config),
        collected,
        whole=_is_whole(session),
        shard=_shard(config),
        planned=_planned(config, config.stash.get(_planned_key, [])),
    )
    if _recorder_key in config.stash:
        config.stash[_recorder_key].begin()


# --- one item --------------------------------------------------------------------------------


@pytest.fixture
def conformance(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Call it to run the check of this item."""
    job: Job = request.param
    config, node = request.config, request.node
    record = node.stash[_record_key] = job.start(_run_id(config), node.nodeid)

    def run() -> None:
        folder, worker = _folder(config), _worker_id(config)
        folder.checkpoint(worker, record)
        limit = _time_limit(config) * _STUCK_FACTOR
        with _ended_if_stuck(limit) if _is_worker(config) else nullcontext():
            job.run(record, _matrix(config).known)
        folder.landed(worker)
        _conclude(record)

    return run


def _conclude(record: Record) -> None:
    """Make pytest's outcome of a record's status."""
    if record.status in _APART:
        pytest.skip(f"{record.status}: {record.known or record.message}")
    if record.status != "pass":
        pytest.fail(describe(record), pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Send the record along with the report of the call, or of a phase that failed."""
    report = yield
    job = _job(item)
    if job is None or not (report.failed or call.when == "call"):
        return report
    from harness.memory import peak_resident_bytes  # torch is loaded: there is a job

    record = item.stash.get(_record_key, None) or job.start(_run_id(item.config), item.nodeid)
    if report.failed and not _explains_itself(record):
        _explain(record, call, report, _time_limit(item.config))
        report.longrepr = describe(record)
    attach(report, record, peak_resident_bytes())
    return report


def _explains_itself(record: Record) -> bool:
    """True if the check came back and says why the item failed."""
    return record.seconds is not None and record.status in {"fail", "error", "fixed"}


def _explain(
    record: Record, call: pytest.CallInfo[None], report: pytest.TestReport, limit: float
) -> None:
    """Give the record of a check that was cut short the reason why."""
    error = call.excinfo.value if call.excinfo else None
    record.status, record.seconds = "error", call.duration
    end = ended.failed(f"the {call.when} of the test", error)
    if "from pytest-timeout" in str(error):  # it raises what pytest.fail does: no other sign
        end = ended.hung(limit)
        report.sections.clear()  # pytest-timeout prints the stacks of xdist's own threads
    end.fill(record)


@contextmanager
def _ended_if_stuck(seconds: float) -> Iterator[None]:
    """End this worker from a thread that needs no GIL, should native code never return.

    Its death is cheap: the controller gives the check its record, and another worker goes on.
    """
    with open(os.devnull, "w") as nowhere:
        faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()


# --- the session -----------------------------------------------------------------------------


def _matrix(config: pytest.Config) -> Matrix:
    """The subjects and their plans, loaded when the first conformance test is met."""
    if _matrix_key not in config.stash:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        import torch

        from harness.run.job import Matrix
        from harness.run.registry import TargetError

        torch.set_num_threads(1)  # exact peaks, and two workers on two cores
        try:
            matrix = Matrix(config.getoption("harness_subjects"), _known(config))
        except TargetError as error:
            raise pytest.UsageError(f"--subject: {error}") from error
        config.stash[_matrix_key] = matrix
    return config.stash[_matrix_key]


def _known(config: pytest.Config) -> list[Cause]:
    from harness.gate import known_files

    try:
        return known_files.load(
            *(folder / "known_failures" for folder in config.getini("harness_suites"))
        )
    except known_files.KnownFailuresError as error:
        raise pytest.UsageError(f"known failures: {error}") from error


def _job(item: pytest.Item) -> Job | None:
    """The job of a conformance item, None for any other test."""
    callspec = getattr(item, "callspec", None)
    job = None if callspec is None else callspec.params.get("conformance")
    return job if hasattr(job, "planned") else None


def _planned(config: pytest.Config, items: list[pytest.Item]) -> list[Record]:
    """The records of the conformance items among these, as they stand before any has run."""
    run = _run_id(config)
    return [job.planned(run, item.nodeid) for item in items if (job := _job(item)) is not None]


def _shard(config: pytest.Config) -> str:
    """ "2/4" where pytest-split is told to run the second of four parts."""
    splits, group = (getattr(config.option, name, None) for name in ("splits", "group"))
    return f"{group}/{splits}" if splits and group else ""


def _is_empty(item: pytest.Item) -> bool:
    """True for the placeholder that pytest makes of an empty list of parameters."""
    return item.get_closest_marker("conformance") is not None and _job(item) is None


def _worker_input(config: pytest.Config) -> dict[str, str] | None:
    """What the controller told this worker; None in a process that is no xdist worker."""
    return getattr(config, "workerinput", None)


def _is_worker(config: pytest.Config) -> bool:
    return _worker_input(config) is not None


def _worker_id(config: pytest.Config) -> str:
    told = _worker_input(config)
    return "main" if told is None else told["workerid"]


def _run_id(config: pytest.Config) -> str:
    told = _worker_input(config)
    return config.stash[_recorder_key].info.run if told is None else told["harness_run"]


def _folder(config: pytest.Config) -> Folder:
    return Folder(Path(config.option.harness_out))


def _time_limit(config: pytest.Config) -> float:
    """Seconds a check may take: pytest-timeout's option where given."""
    given = config.getoption("timeout", None)
    return float(given) if given else _TIMEOUT_S


def _suite_files(config: pytest.Config) -> list[Path]:
    return [path for folder in config.getini("harness_suites") for path in folder.glob("test_*.py")]


def _suites_selected(config: pytest.Config) -> bool:
    """True if an argument is, holds or picks from a file of conformance suites."""
    where = config.invocation_params.dir
    paths = [(where / arg.partition("::")[0]).resolve() for arg in config.args]
    return any(file.is_relative_to(path) for file in _suite_files(config) for path in paths)


def _is_whole(session: pytest.Session) -> bool:
    """True if every suite was collected in full, for every registered subject."""
    option, config = session.config.option, session.config
    if config.stash.get(_deselected_key, 0) or session.testsfailed or option.harness_subjects:
        return False
    if option.ignore_glob or getattr(option, "lf", False):
        return False
    where, files = config.invocation_params.dir, _suite_files(config)
    given = [(where / arg).resolve() for arg in config.args if "::" not in arg]
    ignored = [(where / path).resolve() for path in option.ignore or ()]
    return bool(files) and all(
        any(f.is_relative_to(p) for p in given) and not any(f.is_relative_to(p) for p in ignored)
        for f in files
    )


def _wants_workers(config: pytest.Config) -> bool:
    option = config.option
    return (
        config.pluginmanager.hasplugin("xdist")
        and not _is_worker(config)
        and option.numprocesses is None
        and option.dist == "no"
        and not option.tx
        and not option.usepdb
        and not option.collectonly
        and _suites_selected(config)
    )
