"""What the rows of the plan choose from: schedules for a tiny model, and parts of the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from harness.cases import schedules
from harness.cases.models import Model
from harness.cases.schedules import Schedule

# --- schedules


def named(*names: str) -> Callable[[Model], list[Schedule]]:
    """The standard schedules of these names."""
    return lambda model: [s for s in _standard(model.turn, model.sink) if s.name in names]


def every(model: Model) -> list[Schedule]:
    """Every standard schedule except the long one, which is run only at batch 3."""
    return [s for s in _standard(model.turn, model.sink) if s.name != "turns"]


def prefills(model: Model) -> list[Schedule]:
    """The standard schedules of one feed."""
    return [s for s in every(model) if len(s.steps) == 1]


def resets(model: Model) -> list[Schedule]:
    """Schedules that reset once."""
    return [s for s in schedules.resets(model.turn, model.sink) if s.name != _TWICE]


def reset_twice(model: Model) -> list[Schedule]:
    """The schedule that resets twice."""
    return [s for s in schedules.resets(model.turn, model.sink) if s.name == _TWICE]


def rewinds(model: Model) -> list[Schedule]:
    """Schedules that rewind."""
    return schedules.rewinds(model.turn, model.sink)


def past(position: int) -> Callable[[Model], list[Schedule]]:
    """The far schedules past that position."""
    name = f"past-{position}"
    return lambda model: [
        s for s in schedules.far(model.turn, model.sink) if s.name.startswith(name)
    ]


def past_or_turns(model: Model) -> list[Schedule]:
    """The long schedules: a chat, and past position 256."""
    return [*past(256)(model), *named("turns")(model)]


def rewind_3(model: Model) -> list[Schedule]:
    """The schedule that goes back by three tokens."""
    return [s for s in rewinds(model) if s.name == "rewind-3-of-long"]


def byte_runs(model: Model) -> list[Schedule]:
    """Long prompts, and steady decode after them."""
    return schedules.byte_runs(model.turn, model.sink)


@cache  # called a few thousand times while a run is collected
def _standard(turn: int, sink: int) -> tuple[Schedule, ...]:
    return tuple(schedules.standard(turn, sink))


_TWICE = "reset-twice"

# --- models

#: Windows from this width on are realistic, and too slow for the whole table.
_WIDE_FROM = 32
#: Between them: every law, caches that layers share, and layers with a head_dim of their own.
_EXPORTED = frozenset(
    ("mistral", "gemma2", "gemma4-e2b", "llama3", "llama4", "llama3-sink2", "llama3-sink4")
)


def whole(model: Model) -> list[Model]:
    """The model as it is, unless its window is wide."""
    return [] if _is_wide(model) else [model]


def layers(model: Model) -> list[Model]:
    """A one-layer model of each kind of layer, the bounded kind first."""
    if _is_wide(model):
        return []
    kinds = {kind.removesuffix("_attention") for kind in model.layer_types}
    return [model.isolate(kind) for kind in ("sliding", "full", "chunked") if kind in kinds]


def first_layer(model: Model) -> list[Model]:
    """One layer of the first kind of layer, the bounded one where there is one."""
    return layers(model)[:1]


def bounded_layers(model: Model) -> list[Model]:
    """Single layers that forget.  With a window of 1 positions cancel: nothing depends on them."""
    return [m for m in layers(model) if m.layers[0].bounded and m.layers[0].window != 1]


#: Models of which one layer tells positions from rounded ones by half as much again as it must.
_FAR_IN_HALF = frozenset(("mistral", "gpt-oss", "gemma4-e2b", "cohere2"))


def far_in_half(model: Model) -> list[Model]:
    """Single layers that forget, of the models that show rounded positions best."""
    return bounded_layers(model) if model.name in _FAR_IN_HALF else []


def layers_with_a_border(model: Model) -> list[Model]:
    """Single layers that forget; if none does, the only kind of layer there is."""
    alone = layers(model)
    return [m for m in alone if m.layers[0].bounded or m is alone[0]]


def layers_without_a_border(model: Model) -> list[Model]:
    """Single layers that forget nothing, in models where others do."""
    return [m for m in layers(model) if m not in layers_with_a_border(model)]


def wide(model: Model) -> list[Model]:
    """The model, if its window is of real proportions."""
    return [model] if _is_wide(model) else []


def exported(model: Model) -> list[Model]:
    """The model, if it is one of those that are exported."""
    return [model] if model.name in _EXPORTED else []


def _is_wide(model: Model) -> bool:
    return (model.window or 0) >= _WIDE_FROM
