"""The checks: one function each, from a subject and a case to a `Finding`."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from harness.cases.case import Case
from harness.checks.bytes import cache_bytes
from harness.checks.export import export
from harness.checks.gradients import gradients
from harness.checks.peak import peak_bytes
from harness.checks.refusal import refusal
from harness.checks.state import purity, reset, rewind
from harness.checks.values import values
from harness.checks.visibility import visibility
from harness.contract import ContractError, Subject, Unsupported
from harness.results import ended
from harness.results.finding import Finding, Kind, Status

Check = Callable[[Subject, Case], Finding]

#: Every check by name, in the order of the report.
CHECKS: dict[str, Check] = {
    "visibility": visibility,
    "values": values,
    "gradients": gradients,
    "cache_bytes": cache_bytes,
    "peak_bytes": peak_bytes,
    "reset": reset,
    "rewind": rewind,
    "refusal": refusal,
    "purity": purity,
    "export": export,
}


def run_check(subject: type[Subject], check: str, case: Case) -> Finding:
    """Run one check of one case on a fresh instance of the subject; never raises for a subject.

    Unsupported becomes "not-claimed"; any other exception becomes "error" with its type and its
    last line in the message.  Raises ValueError for an unknown check.
    """
    if check not in CHECKS:
        raise ValueError(f"unknown check {check!r}; known: {', '.join(CHECKS)}")
    try:
        return CHECKS[check](subject(), case)
    except Unsupported as reason:
        return Finding(check, Status.NOT_CLAIMED, message=reason.reason)
    except ContractError as broken:
        return Finding(check).fail(Kind.CONTRACT_BROKEN, f"breaks the contract: {broken}")
    except Exception as error:
        return Finding(
            check,
            Status.ERROR,
            kind=ended.kind_of(error),
            message=f"{type(error).__name__}: {error} ({_where(error)})",
            exception=type(error).__name__,
        )


def _where(error: BaseException) -> str:
    """The innermost place of an exception as file:line, without a path to it."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else "?"
