"""The matrix as a table: which body runs which check on which schedules and models, and why.

A row is run for every tiny model that its `models` takes; `harness.run.plan` makes the cases.
Rows are run from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache

from harness.cases import schedules
from harness.cases.models import Model
from harness.cases.schedules import Schedule
from harness.results.finding import ATTENTION, CACHE, DECODER


@dataclass(frozen=True)
class Row:
    """One line of the table.

    schedules: gives the schedules for a tiny model.  models: gives what is run under them: the
    model itself, single layers of it, or nothing.  unless: an
    optional member; subjects with it are left out.  needs: an optional member; subjects without it
    do not get this row.
    """

    bodies: tuple[str, ...]
    check: str
    schedules: Callable[[Model], Iterable[Schedule]]
    models: Callable[[Model], list[Model]]
    why: str
    dtypes: tuple[str, ...] = ("float32",)
    batches: tuple[int, ...] = (1,)
    needs: str = ""
    unless: str = ""


# --- schedules


def _named(*names: str) -> Callable[[Model], list[Schedule]]:
    """The standard schedules of these names."""
    return lambda model: [s for s in _standard(model.turn, model.sink) if s.name in names]


def _every(model: Model) -> list[Schedule]:
    """Every standard schedule except the long one, which is run only at batch 3."""
    return [s for s in _standard(model.turn, model.sink) if s.name != "turns"]


def _prefills(model: Model) -> list[Schedule]:
    """The standard schedules of one feed."""
    return [s for s in _every(model) if len(s.steps) == 1]


def _resets(model: Model) -> list[Schedule]:
    return [s for s in schedules.resets(model.turn, model.sink) if s.name != _TWICE]


def _reset_twice(model: Model) -> list[Schedule]:
    return [s for s in schedules.resets(model.turn, model.sink) if s.name == _TWICE]


def _rewinds(model: Model) -> list[Schedule]:
    return schedules.rewinds(model.turn, model.sink)


def _past(position: int) -> Callable[[Model], list[Schedule]]:
    """The far schedules past that position."""
    name = f"past-{position}"
    return lambda model: [
        s for s in schedules.far(model.turn, model.sink) if s.name.startswith(name)
    ]


def _rewind_3(model: Model) -> list[Schedule]:
    return [s for s in _rewinds(model) if s.name == "rewind-3-of-long"]


def _byte_runs(model: Model) -> list[Schedule]:
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


def _whole(model: Model) -> list[Model]:
    """The model as it is, unless its window is wide."""
    return [] if _is_wide(model) else [model]


def _layers(model: Model) -> list[Model]:
    """A one-layer model of each kind of layer, the bounded kind first."""
    if _is_wide(model):
        return []
    kinds = {kind.removesuffix("_attention") for kind in model.layer_types}
    return [model.isolate(kind) for kind in ("sliding", "full", "chunked") if kind in kinds]


def _first_layer(model: Model) -> list[Model]:
    return _layers(model)[:1]


def _with_a_border(model: Model) -> list[Model]:
    """Models that forget.  With a window of 1 positions cancel: no answer depends on them."""
    return [m for m in _whole(model) if any(a.bounded and a.window != 1 for a in m.layers)]


def _layers_with_a_border(model: Model) -> list[Model]:
    """Single layers that forget; if none does, the only kind of layer there is."""
    alone = _layers(model)
    return [m for m in alone if m.layers[0].bounded or m is alone[0]]


def _layers_without_a_border(model: Model) -> list[Model]:
    """Single layers that forget nothing, in models where others do."""
    return [m for m in _layers(model) if m not in _layers_with_a_border(model)]


def _wide(model: Model) -> list[Model]:
    return [model] if _is_wide(model) else []


def _exported(model: Model) -> list[Model]:
    return [model] if model.name in _EXPORTED else []


def _is_wide(model: Model) -> bool:
    return (model.window or 0) >= _WIDE_FROM


# --- the table

_ALL = (ATTENTION, CACHE, DECODER)
_LAYERWISE = (ATTENTION, CACHE)
_STATEFUL = (CACHE, DECODER)
_HALF = ("float16", "bfloat16")

_FEW = _named("prefill-3w+5", "chunk-w+1", "decode-3wraps", "ragged-primes")
_TURNS = _named("ragged-primes", "turns")

TABLE: tuple[Row, ...] = (
    Row(_LAYERWISE, "visibility", _every, _whole, "each layer's visible set, by one-hot values"),
    Row(_ALL, "values", _every, _whole, "every answer of every schedule"),
    Row(
        (DECODER,),
        "visibility",
        _every,
        _layers_with_a_border,
        "through a full layer every token reaches every later one, so the exact set of a window "
        "shows only in a single layer",
    ),
    Row(
        (DECODER,),
        "visibility",
        _FEW,
        _layers_without_a_border,
        "no border that could be missed: a few schedules are enough",
    ),
    Row(
        (DECODER,),
        "visibility",
        _named("chunk-4"),
        _whole,
        "the reach of a token through the whole stack shows which layers read which caches",
    ),
    Row(_LAYERWISE, "visibility", _TURNS, _whole, "rows of a batch", batches=(3,)),
    Row(
        _ALL,
        "values",
        _TURNS,
        _whole,
        "rows of a batch; the long schedule is run only here",
        batches=(3,),
    ),
    Row(_LAYERWISE, "values", _past(256), _whole, "positions past 256, in prefill and decode"),
    Row(
        (DECODER,),
        "values",
        _past(256),
        _layers_with_a_border,
        "the same; one key of 256 is lost in the noise of a deep stack, and programs are lowered "
        "for short contexts",
        unless="lowered",
    ),
    Row(
        (DECODER,),
        "values",
        _past(512),
        _with_a_border,
        "positions that are rounded to half precision on the way to RoPE; full attention averages "
        "over too many keys to show it",
        dtypes=("bfloat16",),
        unless="lowered",
    ),
    Row((DECODER,), "values", _named("chunk-w"), _layers, "faults that a stack may average out"),
    Row((ATTENTION,), "gradients", _prefills, _whole, "a backward pass is of one forward pass"),
    Row(
        _LAYERWISE,
        "values",
        _named("prefill-3w+5", "chunk-4", "chunk-w", "decode-3wraps", "turns"),
        _whole,
        "half precision: a prefill, chunks and single tokens",
        dtypes=_HALF,
    ),
    Row(
        _LAYERWISE,
        "values",
        _past(256),
        _with_a_border,
        "half precision past position 256; in a full layer one of so many keys is lost in it",
        dtypes=_HALF,
    ),
    Row(
        _LAYERWISE,
        "values",
        _named("prefill-3w+5"),
        _wide,
        "half precision: one prompt past position 64",
        dtypes=_HALF,
    ),
    Row(
        (CACHE,),
        "cache_bytes",
        _byte_runs,
        _whole,
        "storage in the case's own precision, which float32 alone would not show",
        dtypes=("float16",),
    ),
    Row(
        (CACHE,),
        "peak_bytes",
        _named("prefill-3w+5", "chunk-w+1", "decode-3wraps"),
        _whole,
        "a long prompt, chunks past the window, steady decode",
    ),
    Row(
        (ATTENTION,),
        "peak_bytes",
        _named("prefill-3w+5", "decode-3wraps"),
        _whole,
        "a prompt and single queries: an operation holds nothing between them",
    ),
    Row((DECODER,), "peak_bytes", _named("prefill-3w+5"), _whole, "the peak of a long prompt"),
    Row(
        (DECODER,),
        "peak_bytes",
        _named("decode-3wraps"),
        _first_layer,
        "steady decode, which a full layer would hide by growing",
    ),
    Row(_STATEFUL, "reset", _resets, _whole, "used, reset, used again"),
    Row(_STATEFUL, "reset", _reset_twice, _whole, "a second reset, of every row", batches=(3,)),
    Row(_STATEFUL, "rewind", _rewinds, _whole, "a few tokens back, a window, far, early, twice"),
    Row(_STATEFUL, "rewind", _rewind_3, _whole, "rows of a batch go back alike", batches=(3,)),
    Row(
        _LAYERWISE,
        "refusal",
        _named("chunk-4"),
        _whole,
        "a batch other than the announced one is among the misuses",
        batches=(3,),
    ),
    Row((DECODER,), "refusal", _named("chunk-4"), _whole, "the same with tokens"),
    Row(_ALL, "purity", _named("chunk-w+1"), _whole, "rows of a batch must not mix", batches=(3,)),
    Row(
        (DECODER,),
        "purity",
        _named("chunk-w+1"),
        _whole,
        "runtimes and lowered programs that take one sequence at a time",
    ),
    Row(
        (CACHE,),
        "purity",
        _named("prefill-by-5-then-decode"),
        _whole,
        "single tokens after chunks",
        batches=(3,),
    ),
    Row(
        (DECODER,),
        "purity",
        _named("prefill-by-5-then-decode"),
        _first_layer,
        "single tokens after chunks",
        batches=(3,),
    ),
    Row(_STATEFUL, "cache_bytes", _byte_runs, _whole, "long prompts at once and in chunks"),
    Row(
        _ALL,
        "values",
        _named("prefill-3w+5", "chunk-w+1"),
        _wide,
        "a realistic window, for what small ones hide: tiles, and positions past 64",
    ),
    Row(
        _ALL,
        "export",
        _named("chunk-4", "decode-3wraps"),
        _exported,
        "chunks and single tokens, whose programs differ",
        needs="exportable",
    ),
)
