"""The matrix as a table: which body runs which check on which schedules and models, and why.

A row is run for every tiny model that its `models` takes; `harness.run.plan` makes the cases.
Rows are run from top to bottom.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from harness.cases.models import Model
from harness.cases.schedules import Schedule
from harness.results.finding import ATTENTION, CACHE, DECODER
from harness.run import plan_choices as choices


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


_ALL = (ATTENTION, CACHE, DECODER)
_LAYERWISE = (ATTENTION, CACHE)
_STATEFUL = (CACHE, DECODER)
_HALF = ("float16", "bfloat16")

_FEW = choices.named("prefill-3w+5", "chunk-w+1", "decode-3wraps", "ragged-primes")
_TURNS = choices.named("ragged-primes", "turns")

TABLE: tuple[Row, ...] = (
    Row(
        _LAYERWISE,
        "visibility",
        choices.every,
        choices.whole,
        "each layer's visible set, by one-hot values",
    ),
    Row(_ALL, "values", choices.every, choices.whole, "every answer of every schedule"),
    Row(
        (DECODER,),
        "visibility",
        choices.every,
        choices.layers_with_a_border,
        "through a full layer every token reaches every later one, so the exact set of a window "
        "shows only in a single layer",
    ),
    Row(
        (DECODER,),
        "visibility",
        _FEW,
        choices.layers_without_a_border,
        "no border that could be missed: a few schedules are enough",
    ),
    Row(
        (DECODER,),
        "visibility",
        choices.named("chunk-4"),
        choices.whole,
        "the reach of a token through the whole stack shows which layers read which caches",
    ),
    Row(_LAYERWISE, "visibility", _TURNS, choices.whole, "rows of a batch", batches=(3,)),
    Row(
        _ALL,
        "values",
        _TURNS,
        choices.whole,
        "rows of a batch; the long schedule is run only here",
        batches=(3,),
    ),
    Row(
        (ATTENTION,),
        "values",
        choices.past(256),
        choices.whole,
        "positions past 256, in prefill and decode",
    ),
    Row(
        _STATEFUL,
        "values",
        choices.past(256),
        choices.layers_with_a_border,
        "the same; one key of 256 is lost in the noise of a deep stack, and programs are lowered "
        "for short contexts",
        unless="lowered",
    ),
    Row(
        (DECODER,),
        "values",
        choices.past(512),
        choices.far_in_half,
        "positions that are rounded to half precision on the way to RoPE; a few models show it: "
        "full attention averages over too many keys, and a stack is too noisy",
        dtypes=("bfloat16",),
        unless="lowered",
    ),
    Row(
        (DECODER,),
        "values",
        choices.named("chunk-w"),
        choices.layers,
        "faults that a stack may average out",
    ),
    Row(
        (ATTENTION,),
        "gradients",
        choices.prefills,
        choices.whole,
        "a backward pass is of one forward pass",
    ),
    Row(
        _LAYERWISE,
        "values",
        choices.named("prefill-3w+5", "chunk-4", "chunk-w", "decode-3wraps"),
        choices.whole,
        "half precision: a prefill, chunks and single tokens",
        dtypes=_HALF,
    ),
    Row(
        _LAYERWISE,
        "values",
        choices.past_or_turns,
        choices.bounded_layers,
        "half precision past positions 64 and 256; in a full layer one key of so many is lost",
        dtypes=_HALF,
    ),
    Row(
        _LAYERWISE,
        "values",
        choices.named("prefill-3w+5"),
        choices.wide,
        "half precision: one prompt past position 64",
        dtypes=_HALF,
    ),
    Row(
        (CACHE,),
        "cache_bytes",
        choices.byte_runs,
        choices.whole,
        "storage in the case's own precision, which float32 alone would not show",
        dtypes=("float16",),
    ),
    Row(
        (CACHE,),
        "peak_bytes",
        choices.named("prefill-3w+5", "chunk-w+1", "decode-3wraps"),
        choices.whole,
        "a long prompt, chunks past the window, steady decode",
    ),
    Row(
        (ATTENTION,),
        "peak_bytes",
        choices.named("prefill-3w+5", "decode-3wraps"),
        choices.whole,
        "a prompt and single queries: an operation holds nothing between them",
    ),
    Row(
        (DECODER,),
        "peak_bytes",
        choices.named("prefill-3w+5"),
        choices.whole,
        "the peak of a long prompt",
    ),
    Row(
        (DECODER,),
        "peak_bytes",
        choices.named("decode-3wraps"),
        choices.first_layer,
        "steady decode, which a full layer would hide by growing",
    ),
    Row(_STATEFUL, "reset", choices.resets, choices.whole, "used, reset, used again"),
    Row(
        _STATEFUL,
        "reset",
        choices.reset_twice,
        choices.whole,
        "a second reset, of every row",
        batches=(3,),
    ),
    Row(
        _STATEFUL,
        "rewind",
        choices.rewinds,
        choices.whole,
        "a few tokens back, a window, far, early, twice",
    ),
    Row(
        _STATEFUL,
        "rewind",
        choices.rewind_3,
        choices.whole,
        "rows of a batch go back alike",
        batches=(3,),
    ),
    Row(
        _LAYERWISE,
        "refusal",
        choices.named("chunk-4"),
        choices.whole,
        "a batch other than the announced one is among the misuses",
        batches=(3,),
    ),
    Row((DECODER,), "refusal", choices.named("chunk-4"), choices.whole, "the same with tokens"),
    Row(
        _ALL,
        "purity",
        choices.named("chunk-w+1"),
        choices.whole,
        "rows of a batch must not mix",
        batches=(3,),
    ),
    Row(
        (DECODER,),
        "purity",
        choices.named("chunk-w+1"),
        choices.whole,
        "runtimes and lowered programs that take one sequence at a time",
    ),
    Row(
        (CACHE,),
        "purity",
        choices.named("prefill-by-5-then-decode"),
        choices.whole,
        "single tokens after chunks",
        batches=(3,),
    ),
    Row(
        (DECODER,),
        "purity",
        choices.named("prefill-by-5-then-decode"),
        choices.first_layer,
        "single tokens after chunks",
        batches=(3,),
    ),
    Row(
        _STATEFUL,
        "cache_bytes",
        choices.byte_runs,
        choices.whole,
        "long prompts at once and in chunks",
    ),
    Row(
        _ALL,
        "values",
        choices.named("prefill-3w+5", "chunk-w+1"),
        choices.wide,
        "a realistic window, for what small ones hide: tiles, and positions past 64",
    ),
    Row(
        _ALL,
        "export",
        choices.named("chunk-4", "decode-3wraps"),
        choices.exported,
        "chunks and single tokens, whose programs differ",
        needs="exportable",
    ),
)
