"""The plan: which checks are run on which cases of a subject.

It is the same for `pytest suites/`, `harness check` and the report.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness.cases.case import Case, parse
from harness.cases.models import TINY, Model
from harness.checks import CHECKS
from harness.law import SCHEMES
from harness.run.plan_table import TABLE, Row
from harness.run.target import Target, as_target

Item = tuple[str, Case]


def items(
    subject: Target | type[Any],
    schemes: Iterable[str] | None = None,
    models: Iterable[str] | None = None,
) -> list[Item]:
    """(check, case) pairs for a subject, filtered by scheme and by model name.

    A subject claims whole schemes; for a case that it cannot do it raises Unsupported when run.
    """
    target = as_target(subject)
    needs = target.offers | {""}
    rows = [
        row
        for row in TABLE
        if target.body in row.bodies and row.needs in needs and row.unless not in target.offers
    ]
    wanted = target.schemes & (set(schemes) if schemes is not None else SCHEMES)
    names = None if models is None else set(models)
    return [
        item
        for model in TINY.values()
        if model.scheme in wanted and (names is None or model.name in names)
        for row in rows
        for item in _items(row, model)
        if target.plans(*item)
    ]


def _items(row: Row, model: Model) -> Iterator[Item]:
    """The checks and cases of one row for one tiny model."""
    for part in row.models(model):
        for batch in row.batches:
            for dtype in row.dtypes:
                for schedule in row.schedules(model):
                    yield row.check, Case(part, schedule, dtype, batch)


class SelectionError(Exception):
    """A selection names something that does not exist; the message lists what does."""


@dataclass(frozen=True)
class Selection:
    """Empty fields select everything.

    model: a model's name ("gemma4-e2b", "gemma3.sliding") or family ("gemma4"); several are
    divided by commas.
    """

    scheme: str = ""
    model: str = ""
    case: str = ""
    check: str = ""

    def items(self, subject: Target | type[Any]) -> list[Item]:
        """The selected part of the subject's plan; a case outside the plan is run as well.

        Raises SelectionError for an unknown name, or if nothing is selected.
        """
        target = as_target(subject)
        self._validate(target)
        schemes = [self.scheme] if self.scheme else None
        out = items(target, schemes)
        if self.model:
            wanted = self.model.split(",")
            chosen = {item for name in wanted for item in _of_model(out, name)}
            out = [item for item in out if item in chosen]  # in the order of the plan
        if self.case:
            out = _of_case(out, self.case)
        if self.check:
            out = _of_check(out, self.check, alone=bool(self.case))
        if not out:
            raise SelectionError(f"{target.name} has no checks under this selection")
        return out

    def _validate(self, target: Target) -> None:
        if self.scheme and self.scheme not in SCHEMES:
            raise SelectionError(
                f"--scheme must be one of {', '.join(sorted(SCHEMES))}, got {self.scheme!r}"
            )
        if self.scheme and self.scheme not in target.schemes:
            raise SelectionError(
                f"{target.name} does not claim --scheme {self.scheme}; "
                f"it claims {', '.join(sorted(target.schemes))}"
            )
        if self.check and self.check not in CHECKS:
            raise SelectionError(f"--check must be one of {', '.join(CHECKS)}, got {self.check!r}")


def _of_model(planned: Sequence[Item], wanted: str) -> list[Item]:
    """By exact name; failing that, by family."""
    for fits in (_is_named, _is_family):
        found = [item for item in planned if fits(item[1], wanted)]
        if found:
            return found
    names = {case.model.name.partition(".")[0] for _, case in planned}
    raise SelectionError(
        f"no checks of --model {wanted}; models here: {', '.join(n for n in TINY if n in names)}"
    )


def _is_named(case: Case, wanted: str) -> bool:
    return wanted in {case.model.name, case.model.name.partition(".")[0]}


def _is_family(case: Case, wanted: str) -> bool:
    return case.model.family == wanted


def _of_case(planned: Sequence[Item], wanted: str) -> list[Item]:
    try:
        case = parse(wanted)
    except ValueError as error:
        raise SelectionError(f"--case: {error}") from error
    found = [item for item in planned if item[1].id == case.id]
    return found or [(check, case) for check in CHECKS]


def _of_check(planned: Sequence[Item], wanted: str, *, alone: bool) -> list[Item]:
    found = [item for item in planned if item[0] == wanted]
    if not found and alone:  # one case: the check is run on it, planned or not
        found = [(wanted, planned[0][1])]
    return found
