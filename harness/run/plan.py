"""Which checks of which cases a subject is run through.

One place decides, for `pytest suites/`, `harness check` and the report alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from harness.cases import schedules
from harness.cases.case import Case, parse
from harness.cases.models import TINY, Model
from harness.cases.schedules import Schedule
from harness.checks import CHECKS
from harness.contract import Subject, kind_of
from harness.law import SCHEMES

Item = tuple[str, Case]

#: One-layer models, by scheme of the model that they come from: only there does the exact visible
#: set of a decoder's window show, since through a full layer every token reaches every later one.
_ISOLATED = ("sliding", "full", "chunked")

#: Schedules that are run at batch 3 too; or only so, since they are long.
_BATCHED = ("ragged-primes", "turns")
_ONLY_BATCHED = ("turns",)
#: Peak bytes; layers that forget nothing; half precision; windows too wide for everything.
_PEAK = ("prefill-3w+5", "chunk-w+1", "decode-3wraps")
_PLAIN = ("prefill-3w+5", "chunk-w+1", "decode-3wraps", "ragged-primes")
_WIDE = ("prefill-3w+5", "chunk-w+1")
_WIDE_FROM = 32
#: Models whose graphs are exported: every law, shared caches, widths of their own.
_EXPORTED = frozenset(
    ("mistral", "gemma2", "gemma4-e2b", "llama3", "llama4", "llama3-sink2", "llama3-sink4")
)
_HALF = ("prefill-3w+5", "chunk-w", "decode-3wraps")


def items(
    subject: type[Subject],
    schemes: Iterable[str] | None = None,
    models: Iterable[str] | None = None,
) -> list[Item]:
    """(check, case) pairs for a subject, filtered by scheme and by model name.

    A subject claims schemes; what it cannot do within one it says itself, by Unsupported.
    """
    wanted = set(subject.schemes) & (set(schemes) if schemes is not None else set(SCHEMES))
    names = None if models is None else set(models)
    make = {"decoder": _decoder_items, "cache": _cache_items, "attention": _attention_items}
    out: list[Item] = []
    for model in TINY.values():
        if model.scheme in wanted and (names is None or model.name in names):
            wide = (model.window or 0) >= _WIDE_FROM
            out += _wide_items(model) if wide else make[kind_of(subject)](model)
            if model.name in _EXPORTED and hasattr(subject, "exportable"):
                out += _export_items(subject, model)
    covers = getattr(subject, "covers", None)
    return out if covers is None else [item for item in out if covers(*item)]


def _turn(model: Model) -> int:
    return model.window or model.chunk or 8


def _all(model: Model) -> tuple[Schedule, ...]:
    return _standard_for(_turn(model), model.sink)


@cache  # asked for a few thousand times while a run is collected
def _standard_for(turn: int, sink: int) -> tuple[Schedule, ...]:
    return tuple(schedules.standard(turn, sink))


def _standard(model: Model) -> list[Schedule]:
    return [s for s in _all(model) if s.name not in _ONLY_BATCHED]


def _wide_items(model: Model) -> list[Item]:
    """A window of real proportions, for what small ones hide: tiles, and positions past 64."""
    return [("values", Case(model, s)) for s in _named(model, _WIDE)]


def _named(model: Model, names: Iterable[str]) -> list[Schedule]:
    return [s for s in _all(model) if s.name in set(names)]


def _state_items(model: Model, isolated: Model) -> Iterator[Item]:
    turn, sink = _turn(model), model.sink
    for schedule in schedules.resets(turn, sink):
        yield "reset", Case(model, schedule, batch=3 if schedule.name == "reset-twice" else 1)
    for schedule in schedules.rewinds(turn, sink):
        yield "rewind", Case(model, schedule)
    for schedule in _named(model, ("chunk-4",)):
        yield "refusal", Case(model, schedule, batch=3 if isolated is model else 1)
    for schedule in _named(model, ("chunk-w+1",)):
        yield "purity", Case(model, schedule, batch=3)
    for schedule in _named(model, ("prefill-by-5-then-decode",)):
        yield "purity", Case(isolated, schedule, batch=3)
    for schedule in schedules.byte_runs(turn, sink):
        yield "cache_bytes", Case(model, schedule)


def _export_items(subject: type[Subject], model: Model) -> Iterator[Item]:
    """Chunks and single tokens, whose programs differ."""
    for schedule in _named(model, ("chunk-4", "decode-3wraps")):
        yield "export", Case(model, schedule)
    if hasattr(subject, "program_bytes"):  # lowered for batch 1, where purity is not run otherwise
        for schedule in _named(model, ("chunk-w+1",)):
            yield "purity", Case(model, schedule)


def _isolated(model: Model) -> list[Model]:
    if model.n_layers == 1:
        return [model]
    kinds = {kind.removesuffix("_attention") for kind in model.layer_types}
    return [model.isolate(kind) for kind in _ISOLATED if kind in kinds]


def _decoder_items(model: Model) -> list[Item]:
    alone = _isolated(model)
    out: list[Item] = []
    for schedule in _standard(model):
        out.append(("values", Case(model, schedule)))
        for layer in alone:
            # A layer that forgets nothing has no border to miss: a few schedules tell all.
            if layer.layers[0].bounded or layer is alone[0] or schedule.name in _PLAIN:
                out.append(("visibility", Case(layer, schedule)))
    # Through the whole stack: which layers read which caches shows in the reach of a token.
    out += [("visibility", Case(model, s)) for s in _named(model, ("chunk-4",))]
    out += [("values", Case(model, s, batch=3)) for s in _named(model, _BATCHED)]
    out += [("values", Case(layer, s)) for layer in alone for s in _named(model, ("chunk-w",))]
    out += [("peak_bytes", Case(model, s)) for s in _named(model, _PEAK[:1])]
    out += [("peak_bytes", Case(alone[0], s)) for s in _named(model, _PEAK[-1:])]
    return out + list(_state_items(model, alone[0]))


def _cache_items(model: Model) -> list[Item]:
    out: list[Item] = []
    for schedule in _standard(model):
        out.append(("visibility", Case(model, schedule)))
        out.append(("values", Case(model, schedule)))
    for schedule in _named(model, _BATCHED):
        out.append(("visibility", Case(model, schedule, batch=3)))
        out.append(("values", Case(model, schedule, batch=3)))
    for dtype in ("float16", "bfloat16"):
        out += [("values", Case(model, s, dtype)) for s in _named(model, _HALF)]
    for schedule in schedules.byte_runs(_turn(model), model.sink):
        out.append(("cache_bytes", Case(model, schedule, "float16")))
    out += [("peak_bytes", Case(model, s)) for s in _named(model, _PEAK)]
    return out + list(_state_items(model, model))


def _attention_items(model: Model) -> list[Item]:
    out: list[Item] = []
    for schedule in _standard(model):
        out.append(("visibility", Case(model, schedule)))
        out.append(("values", Case(model, schedule)))
        if len(schedule.steps) == 1:
            out.append(("gradients", Case(model, schedule)))
    for dtype in ("float16", "bfloat16"):
        out += [("values", Case(model, s, dtype)) for s in _named(model, _HALF)]
    out += [("peak_bytes", Case(model, s)) for s in _named(model, (_PEAK[0], _PEAK[-1]))]
    out += [("purity", Case(model, s, batch=3)) for s in _named(model, ("chunk-w+1",))]
    out += [("refusal", Case(model, s, batch=3)) for s in _named(model, ("chunk-4",))]
    out += [("values", Case(model, s, batch=3)) for s in _named(model, _BATCHED)]
    out += [("visibility", Case(model, s, batch=3)) for s in _named(model, _BATCHED)]
    return list(dict.fromkeys(out))


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
        out = items(subject, schemes)
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
