"""The checks: one function each, from a subject and a case to a `Finding`.

`harness.results.finding.CHECK_INFO` declares them: name, file, integers, bodies.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from importlib import import_module

from harness.cases.case import Case
from harness.contract import ContractError, Subject, Unsupported
from harness.results import ended
from harness.results.finding import CHECK_INFO, CheckInfo, Finding, Kind, Status

Check = Callable[[Subject, Case], Finding]


def _function(info: CheckInfo) -> Check:
    """The function of a declared check."""
    found: Check = getattr(import_module(f"{__name__}.{info.module}"), info.name)
    return found


#: Every check by name, in the order of the report.
CHECKS: dict[str, Check] = {info.name: _function(info) for info in CHECK_INFO}


def run_check(subject: type[Subject], check: str, case: Case) -> Finding:
    """Run one check of one case on a fresh instance of the subject.

    Exceptions become findings: Unsupported is "not-claimed", ContractError is "fail", and any
    other Exception is "error", with its type, text and place in the message.  Raises ValueError
    for an unknown check.
    """
    if check not in CHECKS:
        raise ValueError(f"unknown check {check!r}; known: {', '.join(CHECKS)}")
    try:
        finding = CHECKS[check](subject(), case)
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
    finding.check = check
    return finding


def _where(error: BaseException) -> str:
    """Where an exception was raised, as file:line without the folder."""
    frames = traceback.extract_tb(error.__traceback__)
    return f"{frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else "?"
