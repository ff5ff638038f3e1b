"""The conformance items that a session collects, and whether they are complete."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from harness.results.folder import ALL, SHORT
from harness.results.record import Record
from harness.run.options import run_id, suite_files, takes_all

if TYPE_CHECKING:
    from harness.gate.known import Cause
    from harness.gate.short import Short
    from harness.run.job import Job, Matrix

deselected_key = pytest.StashKey[int]()
_matrix_key = pytest.StashKey["Matrix"]()


def matrix_of(config: pytest.Config) -> Matrix:
    """The subjects and their plans, loaded for the first conformance test.

    Raises UsageError for a --subject that cannot be used.
    """
    if _matrix_key not in config.stash:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        import torch

        from harness.run.job import Matrix
        from harness.run.registry import TargetError

        torch.set_num_threads(1)  # peaks must be exact, and workers share the cores
        try:
            short = None if takes_all(config) else short_matrix(config)
            matrix = Matrix(config.getoption("harness_subjects"), known_causes(config), short)
        except TargetError as error:
            raise pytest.UsageError(f"--subject: {error}") from error
        config.stash[_matrix_key] = matrix
    return config.stash[_matrix_key]


def known_causes(config: pytest.Config) -> list[Cause]:
    """The known failures of the suites.  Raises UsageError for a file that is wrong."""
    from harness.gate import known_files

    try:
        return known_files.load(
            *(folder / "known_failures" for folder in config.getini("harness_suites"))
        )
    except known_files.KnownFailuresError as error:
        raise pytest.UsageError(f"known failures: {error}") from error


def short_matrix(config: pytest.Config) -> Short:
    """The list of the short matrix in the suites.  Raises UsageError for a file that is wrong."""
    from harness.gate import short

    try:
        return short.read(*config.getini("harness_suites"))
    except short.ShortError as error:
        raise pytest.UsageError(f"short matrix: {error}") from error


def matrix_name(config: pytest.Config) -> str:
    """Which matrix the session collects: a list without a row leaves nothing out."""
    return SHORT if matrix_of(config).short.rows else ALL


def job_of(item: pytest.Item) -> Job | None:
    """The job of a conformance item; None for any other test."""
    callspec = getattr(item, "callspec", None)
    job = None if callspec is None else callspec.params.get("conformance")
    return job if hasattr(job, "planned") else None


def name_of(item: pytest.Item) -> str:
    return item.nodeid


def groups_of(item: pytest.Item) -> tuple[str, ...]:
    """The package and the subject of a conformance item; two empty names for any other test."""
    job = job_of(item)
    if job is None or job.target is None:
        return "", ""
    return job.target.package or "", job.origin.subject


def planned_records(config: pytest.Config, items: list[pytest.Item]) -> list[Record]:
    """The records of the conformance items among `items`, as they are before any has run."""
    run = run_id(config)
    return [job.planned(run, item.nodeid) for item in items if (job := job_of(item)) is not None]


def is_empty(item: pytest.Item) -> bool:
    """True for the placeholder that pytest makes for an empty list of parameters."""
    return item.get_closest_marker("conformance") is not None and job_of(item) is None


def is_whole(session: pytest.Session) -> bool:
    """True if every suite was collected in full, for every registered subject."""
    option, config = session.config.option, session.config
    if config.stash.get(deselected_key, 0) or session.testsfailed or option.harness_subjects:
        return False
    if option.ignore_glob or getattr(option, "lf", False):
        return False
    where, files = config.invocation_params.dir, suite_files(config)
    given = [(where / arg).resolve() for arg in config.args if "::" not in arg]
    ignored = [(where / path).resolve() for path in option.ignore or ()]
    return bool(files) and all(
        any(f.is_relative_to(p) for p in given) and not any(f.is_relative_to(p) for p in ignored)
        for f in files
    )
