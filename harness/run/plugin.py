"""The pytest plugin: checks become items, findings become outcomes, and each leaves a record.

A suite is a thin file:

    @pytest.mark.conformance(schemes={"uniform", "full"})
    def test_conformance(conformance):
        conformance()

which becomes one item per subject, check and case of `harness.run.plan` under these schemes.
A subject with ``suite = "sliced_q"`` is run only by the suite that asks for
``conformance(suite="sliced_q")``.  The ini option ``harness_suites`` names the folders that hold
the suites and, in a folder ``known_failures``, their known failures.

The plugin is loaded in every pytest run of its environment, so it imports nothing heavy: torch is
imported for the first conformance test.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest

from harness.results.folder import LATEST
from harness.results.lock import BusyError
from harness.results.record import Record
from harness.results.recorder import Recorder, announce, new_run_id
from harness.run import order
from harness.run.collection import (
    deselected_key,
    groups_of,
    is_empty,
    is_whole,
    job_of,
    known_causes,
    matrix_name,
    matrix_of,
    name_of,
    planned_records,
    short_matrix,
)
from harness.run.keeper import STATUS, Keeper, attach, begin, describe
from harness.run.options import (
    is_worker,
    recorder_key,
    refuse_bad_options,
    results_folder,
    run_id,
    runs_matrix,
    shard_name,
    suites_selected,
    time_limit,
    wants_workers,
    worker_id,
)
from harness.run.outcome import (
    APART,
    LOWERING_FACTOR,
    STUCK_FACTOR,
    conclude,
    ended_if_stuck,
    explain,
    explains_itself,
)
from harness.run.progress import Progress

if TYPE_CHECKING:
    from harness.run.job import Job

_WORKERS = 2

_problems_reported_key = pytest.StashKey[bool]()
_planned_key = pytest.StashKey[list[pytest.Item]]()
_record_key = pytest.StashKey[Record]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Options and ini settings of the harness.

    The plugin is loaded in every project of its environment, so its options have long names.
    """
    group = parser.getgroup("harness", "conformance of attention and KV caches")
    parser.addini("harness_suites", "Folders that hold conformance suites.", type="paths")
    group.addoption(
        "--harness-subject",
        *(["--subject"] if _has_suites(pluginmanager) else []),
        action="append",
        default=[],
        dest="harness_subjects",
        metavar="TARGET",
        help="Check this subject instead of all that are registered (repeatable): a registered "
        "name, package.module:Name or path/to/file.py:Name.",
    )
    group.addoption(
        "--harness-all",
        *(["--all"] if _has_suites(pluginmanager) else []),
        action="store_true",
        dest="harness_all",
        help="Run the whole plan (default: the short matrix, which shows all that the plan shows).",
    )
    group.addoption(
        "--harness-out",
        dest="harness_out",
        metavar="DIR",
        help=f"Folder for the records (default: {LATEST} in the root folder).",
    )


def _has_suites(pluginmanager: pytest.PytestPluginManager) -> bool:
    """True in a project that sets `harness_suites`: only there the short `--subject` is ours."""
    config = pluginmanager.get_plugin("pytestconfig")
    return bool(config is not None and config.getini("harness_suites"))


@pytest.hookimpl(wrapper=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, Any, Any]:
    """Use two workers for the suites by default, so that a crash does not end the session."""
    if wants_workers(config):
        os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any worker imports torch
        config.option.numprocesses = _WORKERS
        config.option.dist = "worksteal"
    return (yield)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse a bad --subject or known failure before anything runs."""
    config.addinivalue_line(
        "markers",
        "conformance(schemes, suite): run the plan of every subject under these schemes, or of "
        "the subjects that name this suite as their own.",
    )
    out = config.getoption("harness_out")
    place = config.invocation_params.dir / out if out else config.rootpath / LATEST
    config.option.harness_out = str(place.resolve())  # workers may start in another folder
    if is_worker(config):
        return
    if config.getoption("harness_subjects") or suites_selected(config):
        refuse_bad_options(config)
    recorder = Recorder(results_folder(config), new_run_id(), list(config.invocation_params.args))
    config.stash[recorder_key] = recorder
    config.add_cleanup(recorder.close)
    keeper = Keeper(recorder, time_limit(config), Progress(config))
    config.pluginmanager.register(keeper, "harness-keeper")
    if config.getoption("harness_subjects"):
        matrix_of(config)
    elif suites_selected(config):
        known_causes(config)
        short_matrix(config)


@pytest.hookimpl(tryfirst=True)  # before xdist starts its workers
def pytest_sessionstart(session: pytest.Session) -> None:
    """Take the folder of results: if this session is killed, no earlier verdict stands."""
    if runs_matrix(session.config):
        try:
            session.config.stash[recorder_key].open()
        except BusyError as busy:
            raise pytest.UsageError(str(busy)) from busy


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a new worker which run it belongs to."""
    node.workerinput["harness_run"] = run_id(node.config)


@pytest.hookimpl(tryfirst=True)
def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, Any] | None:
    """Count known, not claimed and not installed separately: they are neither passes nor skips."""
    status = dict(getattr(report, "user_properties", ())).get(STATUS)
    return APART.get(str(status)) if report.skipped else None


# --- collection, in the process that runs the tests ------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One item per subject, check and case."""
    marker = metafunc.definition.get_closest_marker("conformance")
    if "conformance" in metafunc.fixturenames and marker is not None:
        matrix = matrix_of(metafunc.config)
        jobs = matrix.jobs(**marker.kwargs)
        if not metafunc.config.stash.get(_problems_reported_key, False):
            # The first suite reports the subjects that cannot run: one record each is enough.
            jobs += matrix.problems()
            metafunc.config.stash[_problems_reported_key] = True
        metafunc.parametrize("conformance", jobs, ids=[job.id for job in jobs], indirect=True)


@pytest.hookimpl(trylast=True)  # after -k and -m, before pytest-split takes its part
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Drop the empty item of a suite for which no subject has a case, and set time limits."""
    items[:] = [item for item in items if not is_empty(item)]
    if config.pluginmanager.hasplugin("timeout"):
        limit = pytest.mark.timeout(time_limit(config), method="signal", func_only=True)
        for item in items:
            if job_of(item) is not None:
                item.add_marker(limit)
    config.stash[_planned_key] = list(items)
    if not shard_name(config):  # shards are cut from one order, whatever the machine remembers
        items[:] = order.ordered(items, name_of, groups_of, order.read(config))


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Count the conformance items that a selection leaves out: a whole run leaves out none.

    Items that other shards of the run take are not counted.
    """
    for item in items:
        of_shard = shard_name(item.config) and _planned_key in item.config.stash
        if job_of(item) is not None and not of_shard:
            item.config.stash[deselected_key] = item.config.stash.get(deselected_key, 0) + 1


@pytest.hookimpl(tryfirst=True)  # before xdist tells the controller that it may begin
def pytest_collection_finish(session: pytest.Session) -> None:
    """Write the list of planned items before any of them runs."""
    config = session.config
    here = set(session.items)
    planned = config.stash.get(_planned_key, session.items)
    # In the order of the plan: what is read afterwards does not depend on the order of the run.
    collected = planned_records(config, [item for item in planned if item in here])
    if not collected or config.option.collectonly:
        return
    announce(
        results_folder(config),
        run_id(config),
        collected,
        whole=is_whole(session),
        matrix=matrix_name(config),
        shard=shard_name(config),
        planned=planned_records(config, planned) if shard_name(config) else [],
    )
    if recorder_key in config.stash:
        begin(config.stash[recorder_key])


# --- one item --------------------------------------------------------------------------------


@pytest.fixture
def conformance(request: pytest.FixtureRequest) -> Callable[[], None]:
    """A function that runs the check of this item."""
    job: Job = request.param
    config, node = request.config, request.node
    record = node.stash[_record_key] = job.start(run_id(config), node.nodeid)
    # Before the clock starts: lowering a program takes longer than a check may.
    with (
        ended_if_stuck(time_limit(config) * LOWERING_FACTOR) if is_worker(config) else nullcontext()
    ):
        job.prepare()

    def run() -> None:
        folder, worker = results_folder(config), worker_id(config)
        folder.checkpoint(worker, record)
        limit = time_limit(config) * STUCK_FACTOR
        with ended_if_stuck(limit) if is_worker(config) else nullcontext():
            job.run(record, matrix_of(config).known)
        folder.landed(worker)
        conclude(record)

    return run


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Attach the record to the report of the call, or of a phase that failed."""
    report = yield
    job = job_of(item)
    if job is None or not (report.failed or call.when == "call"):
        return report
    from harness.memory import peak_resident_bytes  # a job exists, so torch is loaded

    record = item.stash.get(_record_key, None) or job.start(run_id(item.config), item.nodeid)
    if report.failed and not explains_itself(record):
        explain(record, call, report, time_limit(item.config))
        report.longrepr = describe(record)
    attach(report, record, peak_resident_bytes())
    return report
