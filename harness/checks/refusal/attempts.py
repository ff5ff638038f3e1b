"""Bad calls between good ones, the same way for every body."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from harness.checks.op_reference import OpReference
from harness.reference import tolerance
from harness.results.finding import Finding, Kind


@dataclass(frozen=True)
class Misuse:
    """One bad call: what is wrong with it, and what it was handed."""

    what: str
    handed: tuple[Tensor, ...]


class Run(Protocol):
    """One life of the body under test, between the good calls before and those after."""

    def head(self) -> None:
        """Make the good calls that come before."""
        ...

    def misuse(self, bad: Misuse) -> object:
        """Make the bad call; whatever it answers."""
        ...

    def tail(self) -> Tensor:
        """Make the good calls that come after -> their rows (..., n, F)."""
        ...


class Body(Protocol):
    """A subject in one case."""

    where: str  # for messages: "" or "Layer(window=8), "
    at: int  # position of the first row that the good calls after must answer

    def start(self) -> Run:
        """A fresh body under test."""
        ...

    def misuses(self) -> list[Misuse]:
        """The bad calls to make."""
        ...

    def good(self) -> OpReference:
        """What the good calls after must be answered with, where none was bad."""
        ...

    def meaning(self, bad: Misuse) -> Expected | None:
        """What must come back where the bad input is taken; None where it stands for nothing."""
        ...

    def wrong(self, bad: Misuse, answer: object, expected: OpReference) -> str:
        """What is wrong with the answer to a bad call; "" where it is right."""
        ...


@dataclass(frozen=True)
class Expected:
    """What an accepted bad call must be answered with, and the good calls after it."""

    answer: OpReference
    after: OpReference


def attempts(finding: Finding, body: Body) -> list[str]:
    """Make every bad call between good ones; returns the names of those answered rightly."""
    want = _at_half(body).tail()
    good = body.good()
    _judge_good(finding, body, want, good)
    taken: list[str] = []
    refused: list[Misuse] = []
    run = _at_half(body)
    accepted = False
    for bad in body.misuses():
        called = _call(finding, body, run, bad)
        if called is None:
            refused.append(bad)
            continue
        accepted = True
        if _is_right(finding, body, bad, called[0], run):
            taken.append(bad.what)
        run = _at_half(body)  # the other one holds what it was handed
    if accepted:  # what the refused calls may have done went with it
        run = _after(body, refused)
    if _spoilt(run, want, good):
        _blame(finding, body, refused, want, good)
    return taken


def row_problem(rows: Tensor, expected: OpReference) -> str:
    """How rows (..., n, F) differ from what is expected; "" where they do not."""
    exact = expected.exact
    if not exact.numel():
        return ""  # nothing was left to feed
    if rows.shape != exact.shape and rows.shape == exact.shape[-rows.dim() :]:
        rows = rows.expand_as(exact)  # rows of rank 1 tokens may come back without a batch
    if rows.shape != exact.shape:
        return f"it answers {tuple(rows.shape)} in place of {tuple(exact.shape)}"
    if not rows.isfinite().all():
        return "its answer holds NaN or an infinity"
    errors = tolerance.row_error(rows, exact)
    worst = int(tolerance.over(errors, expected.bound).argmax())
    off, bound = float(errors[worst]), float(expected.bound[worst])
    return "" if off <= bound else f"its answer is off by {off:.3g} (bound {bound:.3g})"


def _judge_good(finding: Finding, body: Body, rows: Tensor, good: OpReference) -> None:
    """Fail where the good calls themselves are answered wrongly: nothing else shows then."""
    if rows.shape != good.exact.shape:
        got, want = tuple(rows.shape), tuple(good.exact.shape)
        finding.fail(Kind.WRONG_VALUES, f"{body.where}good calls: {got} in place of {want}")
        return
    off = (~(tolerance.row_error(rows, good.exact) <= good.bound)).nonzero().flatten()
    if len(off):
        first = body.at + int(off[0])
        finite = bool(rows.isfinite().all())
        finding.fail(
            Kind.WRONG_VALUES if finite else Kind.NOT_A_NUMBER,
            f"{body.where}good calls are answered wrongly from position {first}"
            f"{'' if finite else ' (NaN or an infinity)'}, before any bad one: see values",
            first,
        )


def _at_half(body: Body) -> Run:
    """A fresh body that has been through the good calls before."""
    run = body.start()
    run.head()
    return run


def _after(body: Body, bad_calls: list[Misuse]) -> Run:
    """The same, which has then refused these calls."""
    run = _at_half(body)
    for bad in bad_calls:
        with suppress(Exception):
            run.misuse(bad)
    return run


def _call(finding: Finding, body: Body, run: Run, bad: Misuse) -> tuple[object] | None:
    """What a bad call answers, as a tuple of one; None where it raised."""
    try:
        return (run.misuse(bad),)
    except Exception as error:
        require_message(finding, f"{body.where}{bad.what}", error)
        return None


def require_message(finding: Finding, what: str, error: Exception) -> None:
    """Fail for an error that says nothing: whoever made the mistake must learn what it was."""
    if not str(error):
        text = f"{what}: {type(error).__name__} without a message"
        finding.fail(Kind.ERROR_WITHOUT_MESSAGE, text)


def _is_right(finding: Finding, body: Body, bad: Misuse, answer: object, run: Run) -> bool:
    """Hold an accepted bad call, and the good ones after it, to what its input stands for."""
    what = f"{body.where}{bad.what}"
    expected = body.meaning(bad)
    if expected is None:
        finding.fail(Kind.BAD_INPUT_ACCEPTED, f"{what}: accepted, though it stands for nothing")
        return False
    problem = body.wrong(bad, answer, expected.answer)
    if problem:
        finding.fail(Kind.ACCEPTED_AND_WRONG, f"{what}: accepted, but {problem}")
        return False
    try:
        rows = run.tail()
    except Exception as error:
        problem = f"the good call after it raises {type(error).__name__}: {error}"
    else:
        problem = row_problem(rows, expected.after) and "the good calls after it are wrong"
    if problem:
        finding.fail(Kind.STATE_CHANGED, f"{what}: accepted and answered rightly, but {problem}")
    return not problem


def _spoilt(run: Run, want: Tensor, good: OpReference) -> str:
    """How the good calls after differ from `want`; "" where they do not."""
    try:
        rows = run.tail()
    except Exception as error:
        return f"the good call after it raises {type(error).__name__}: {error}"
    if tolerance.same_bits(rows, want):
        return ""
    if rows.shape == want.shape and bool((tolerance.row_error(rows, want) <= good.bound).all()):
        return ""
    return "it changed later answers"


def _blame(
    finding: Finding, body: Body, refused: list[Misuse], want: Tensor, good: OpReference
) -> None:
    """Fail for each refused call that spoils the state by itself, or for all of them together."""
    found = [(bad, _spoilt(_after(body, [bad]), want, good)) for bad in refused]
    for bad, how in found:
        if how:
            finding.fail(Kind.STATE_CHANGED, f"{body.where}{bad.what}: refused, but {how}")
    if not any(how for _, how in found):
        text = f"{body.where}each bad call was refused, but together they changed later answers"
        finding.fail(Kind.STATE_CHANGED, text)
