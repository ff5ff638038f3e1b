"""Which part of a subject's plan is wanted: by scheme, model, case and check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness import plan
from harness.cases import Case, parse
from harness.checks import CHECKS
from harness.contract import Subject
from harness.models import SCHEMES, TINY
from harness.plan import Item


class SelectionError(Exception):
    """A selection names something that is not there; the message names field and what is."""


@dataclass(frozen=True)
class Selection:
    """Empty fields select everything.

    model: a model's name ("gemma4-e2b", "gemma3.sliding") or family ("gemma4").
    """

    scheme: str = ""
    model: str = ""
    case: str = ""
    check: str = ""

    def items(self, subject: type[Subject]) -> list[Item]:
        """What is selected of the subject's plan; a case outside of the plan is run all the same.

        Raises SelectionError.
        """
        self._validate(subject)
        schemes = [self.scheme] if self.scheme else None
        out = plan.items(subject, schemes)
        if self.model:
            out = _of_model(out, self.model)
        if self.case:
            out = _of_case(out, self.case)
        if self.check:
            out = _of_check(out, self.check, alone=bool(self.case))
        if not out:
            raise SelectionError(f"{subject.name} has no checks under this selection")
        return out

    def _validate(self, subject: type[Subject]) -> None:
        if self.scheme and self.scheme not in SCHEMES:
            raise SelectionError(
                f"--scheme must be one of {', '.join(sorted(SCHEMES))}, got {self.scheme!r}"
            )
        if self.scheme and self.scheme not in subject.schemes:
            raise SelectionError(
                f"{subject.name} does not claim --scheme {self.scheme}; "
                f"it claims {', '.join(sorted(subject.schemes))}"
            )
        if self.check and self.check not in CHECKS:
            raise SelectionError(f"--check must be one of {', '.join(CHECKS)}, got {self.check!r}")


def _of_model(items: Sequence[Item], wanted: str) -> list[Item]:
    """By exact name; failing that, by family."""
    for fits in (_is_named, _is_family):
        found = [item for item in items if fits(item[1], wanted)]
        if found:
            return found
    names = {case.model.name.partition(".")[0] for _, case in items}
    raise SelectionError(
        f"no checks of --model {wanted}; models here: {', '.join(n for n in TINY if n in names)}"
    )


def _is_named(case: Case, wanted: str) -> bool:
    return wanted in {case.model.name, case.model.name.partition(".")[0]}


def _is_family(case: Case, wanted: str) -> bool:
    return case.model.family == wanted


def _of_case(items: Sequence[Item], wanted: str) -> list[Item]:
    try:
        case = parse(wanted)
    except ValueError as error:
        raise SelectionError(f"--case: {error}") from error
    found = [item for item in items if item[1].id == case.id]
    return found or [(check, case) for check in CHECKS]


def _of_check(items: Sequence[Item], wanted: str, *, alone: bool) -> list[Item]:
    found = [item for item in items if item[0] == wanted]
    if not found and alone:  # one case: the check is run on it, planned or not
        found = [(wanted, items[0][1])]
    return found
