"""One check of one case of a target, from its name to its record."""

from __future__ import annotations

import time
from importlib import metadata
from typing import Any

import torch

from harness import registry
from harness.cases import Case
from harness.checks import run_check
from harness.findings import Finding, Status
from harness.gate import records
from harness.gate.records import Origin, Record


def origin(target: str, subject: type[Any]) -> Origin:
    """What the records of a loaded target share: names, versions, device, threads."""
    versions = {"torch": str(torch.__version__)}
    package = getattr(subject, "package", None)
    if isinstance(package, str):
        versions[package] = metadata.version(package)
    return Origin(
        subject=registry.label(target, subject),
        target=target,
        subject_version=registry.version(subject),
        device=str(getattr(subject, "device", "cpu")).partition(":")[0],
        threads=torch.get_num_threads(),
        versions=versions,
    )


def execute(subject: type[Any], record: Record, case: Case) -> Record:
    """Run the check of a started record and fill it.

    What a subject raises is in the record, `sys.exit` included; only an interrupt passes through.
    """
    began = time.perf_counter()
    try:
        finding = run_check(subject, record.check, case)
    except (Exception, SystemExit) as error:  # run_check holds what a subject may raise
        name = type(error).__name__
        finding = Finding(record.check, Status.ERROR, message=f"{name}: {error}", exception=name)
    return records.finish(record, finding, time.perf_counter() - began)
