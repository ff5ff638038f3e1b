"""A windowed decoder with state, converted to Core ML and run by our MIL interpreter.

The program is what coremltools makes of `graph.StatefulDecoder` after all its passes.
`coreml.decoder` runs it anywhere; `coreml.decoder.predict` runs the same model in Core ML itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from harness.cases.case import VOCAB, Case, stable_seed
from harness.cases.models import Model
from harness.contract import Unsupported
from harness.law import SCHEMES, Layer
from harness.mil.arrays import Array
from harness.mil.conversion import convert
from harness.mil.engines import Engine, Interpreted, Predicted, require_macos
from harness.mil.kept import Kept, kept
from harness.reference import oracle
from harness.reference.decoder import forward, make_weights, rope_tables
from harness.schemes.static.layout import StaticLayout, model_cache_lens
from harness.schemes.static.masks import CacheSlots, Write, rewind, slots_of, store
from harness.schemes.validation import check_tokens
from harness.subjects.coreml.graph import StatefulDecoder

if TYPE_CHECKING:
    from harness.mil.interpreter import Interpreter

#: Tokens in every chunk: shorter feeds are padded, longer ones split.
CHUNK = 4

#: Positions that full layers are converted for, including the padding of the last chunk.
CONTEXT = 128

#: Schedules of each check that does not run on all of them.  `visibility` runs a decoder of batch 1
#: once per token.  `peak_bytes` sees only the host's memory, not the model's.  `cache_bytes` needs
#: the case's dtype, while states have their own.
SCHEDULES = {
    "values": {"prefill-3w+5", "decode-3wraps", "chunk-w", "chunk-w+1", "ragged-primes", "turns"},
    "visibility": {"chunk-w+1"},
    "peak_bytes": set[str](),
    "cache_bytes": set[str](),
}

#: Added to the scores of hidden keys: an engine's softmax may not handle infinities.
MASKED = -1e4


class CoreMLDecoder:
    """One run of a converted decoder: keys and values are in the model, all other state is here."""

    def __init__(self, case: Case, make_engine: Any) -> None:
        self.case = case
        self.layout = layout_of(case)
        self.slots = slots_of(self.layout)
        self.length = 0
        self._make_engine = make_engine
        self._engine: Engine | None = None

    @property
    def engine(self) -> Engine:
        """The engine that runs the model, made on first use: dense runs need none."""
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    @torch.no_grad()
    def feed(self, tokens: Tensor) -> Tensor:
        """See `Decoder.feed`.  Raises ValueError for bad input, with the state as it was."""
        check_tokens(tokens, self.case.batch, self.case.vocab)
        self._check_room(tokens.shape[1])
        parts = torch.split(tokens, CHUNK, 1)
        return torch.cat([self._step(part) for part in parts], 1)

    def reset(self) -> None:
        """See `Decoder.reset`."""
        self.engine.reset()
        for slots in self.slots.values():
            slots.reset()
        self.length = 0

    def rewind(self, length: int) -> None:
        """Forget all positions >= length: their slots are masked until they are written again.

        Raises ValueError, with the state as it was, for a position that cannot be returned to.
        """
        rewind(self.slots, self.length, length)
        self.length = length

    def cache_bytes(self) -> list[int]:
        """Bytes of the model's states, per layer."""
        total = [0] * self.case.model.n_layers
        for name, nbytes in self.engine.state_bytes().items():
            total[_layer_of(name)] += nbytes
        return total

    @torch.no_grad()
    def dense(self, tokens: Tensor, layers: Sequence[Layer] | None = None) -> Tensor:
        """See `Decoder.dense`; keys and values are rounded to float16, as in the states.

        In a float64 case they are not: it is the reference that the rounding is measured against.
        """
        case, n = self.case, tokens.shape[1]
        exact = case.dtype == "float64"
        weights = make_weights(case.model, case.vocab, case.weights_seed)
        laws = case.model.layers if layers is None else layers
        kept: dict[int, tuple[Tensor, Tensor]] = {}

        def attend(i: int, q: Tensor, k: Tensor | None, v: Tensor | None) -> Tensor:
            if k is not None and v is not None:
                kept[i] = (k, v) if exact else (_as_held(k), _as_held(v))
            keys, values = kept[case.model.kv_sources[i]]
            return oracle.attention(q, keys, values, laws[i].mask(0, n, n))

        return forward(weights.to(getattr(torch, case.dtype)), tokens, torch.arange(n), attend)

    def _check_room(self, n: int) -> None:
        """Raise ValueError if a chunk would start too late to fit a full layer's cache."""
        start = self.length + (n - 1) // CHUNK * CHUNK
        for slots in self.slots.values():
            last = slots.held.last_start
            if last is not None and start > last:
                raise ValueError(
                    f"{n} tokens at position {self.length} need a chunk that starts at {start}; "
                    f"chunks of this model may start at {last} at the latest"
                )

    def _step(self, tokens: Tensor) -> Tensor:
        n = tokens.shape[1]
        padded = torch.nn.functional.pad(tokens, (0, CHUNK - n)).int()
        positions = torch.arange(self.length, self.length + CHUNK)
        masks = {
            name: torch.where(slots.visible(positions), 0.0, MASKED)[None, None]
            for name, slots in self.slots.items()
        }
        sources = {name: source_of(slots, n) for name, slots in self.slots.items()}
        rope = _rope(self.layout, positions)
        (logits,) = self.engine.predict(self._named(padded, rope, masks, sources)).values()
        self.length += n
        return torch.from_numpy(logits)[:, :n]

    def _named(self, *args: Any) -> dict[str, Array]:
        names = _kept(self.case.model, self.case.batch).inputs
        leaves = (leaf.numpy() for leaf in pytree.tree_leaves(args))
        return dict(zip(names, leaves, strict=True))


def source_of(slots: CacheSlots, n: int) -> Tensor:
    """Take the next n positions; returns, per slot (C,), its key's index in cache + chunk."""
    source = torch.arange(len(slots.positions))
    write: Write = slots.write(n)
    store(source, torch.arange(len(source), len(source) + CHUNK), 0, slots.layer.sink, write)
    return source.int()


def layout_of(case: Case) -> StaticLayout:
    """The cache layout of a case's model.  Raises Unsupported for too long a context."""
    room = CONTEXT - CHUNK
    if case.max_context > room and not all(layer.bounded for layer in case.model.layers):
        raise Unsupported(
            f"full layers are converted for {room} positions, the case needs {case.max_context}"
        )
    return _layout(case.model, case.batch)


def _layout(model: Model, batch: int) -> StaticLayout:
    lens = model_cache_lens(model, CONTEXT, CHUNK)
    return StaticLayout(model, lens, batch, torch.float16, style="smart_mask")


def _rope(layout: StaticLayout, positions: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    return {
        name: rope_tables(positions, head_dim, torch.float32)
        for name, head_dim in layout.rope_dims.items()
    }


def _as_held(x: Tensor) -> Tensor:
    """Rounded to float16, as a state holds it."""
    return x.to(torch.float16).to(x.dtype)


def _layer_of(state: str) -> int:
    """The layer of a state, whose name ends in "k<i>" or "v<i>"."""
    return int(re.split("[kv]", state)[-1])


@lru_cache(maxsize=32)
def converted(model: Model, batch: int) -> Any:
    """A tiny model as a Core ML model; all its cases share it, as they share a seed."""
    layout = _layout(model, batch)
    weights = make_weights(model, VOCAB, stable_seed(model.name)).to(torch.float32)
    positions = torch.arange(CHUNK)
    masks = {
        name: torch.zeros(1, 1, CHUNK, cache_len + CHUNK)
        for name, (cache_len, _) in layout.masks.items()
    }
    sources = {
        name: torch.arange(cache_len, dtype=torch.int32)
        for name, (cache_len, _) in layout.masks.items()
    }
    tokens = torch.zeros(batch, CHUNK, dtype=torch.int32)
    args = (tokens, _rope(layout, positions), masks, sources)
    return convert(StatefulDecoder(layout, weights), args)


class Decoder:
    """The converted decoder, run by the interpreter: float32 arithmetic over float16 states."""

    name = "coreml.decoder"
    package = "coremltools"
    stored = "float16"  # Core ML's states have no other dtype
    suite = "coreml"
    schemes = SCHEMES
    #: Names of models; one-layer models are listed by name, too.
    models = frozenset(
        {"mistral", "mistral.sliding", "mistral-w1", "gemma2"}
        | {"llama3", "llama3-sink4", "llama3-sink4.sliding", "llama4", "llama4.chunked"}
    )
    #: Checks left out, by model.  Through many layers the rounding of float16 states hides a
    #: neighbouring law from the bound; `visibility` still shows who attends to whom.
    blind: Mapping[str, frozenset[str]] = {
        "llama4": frozenset({"rewind"}),
    }

    @classmethod
    def covers(cls, check: str, case: Case) -> bool:
        """A few models, at batch 1, in float32; fewer schedules for slow checks."""
        if case.model.name not in cls.models or case.batch != 1 or case.dtype != "float32":
            return False
        if check in cls.blind.get(case.model.name, ()):
            return False
        return case.schedule.name in SCHEDULES.get(check, {case.schedule.name})

    def open(self, case: Case) -> CoreMLDecoder:
        """A decoder with empty states.  Raises Unsupported for what it was not converted for."""
        claim(case)
        return CoreMLDecoder(case, lambda: _interpreted(case))

    def profile(self, case: Case) -> list[int]:
        """Bytes of the states of each layer: keys and values of cache_len slots in float16."""
        layout = layout_of(case)
        return [layout.layer_bytes(i) for i in range(case.model.n_layers)]


class DecoderPredict(Decoder):
    """The model of `coreml.decoder`, run by Core ML itself on macOS."""

    name = "coreml.decoder.predict"
    models = frozenset({"mistral", "gemma2", "llama3-sink4"})
    checks = frozenset({"values"})  # only the arithmetic differs from coreml.decoder

    def open(self, case: Case) -> CoreMLDecoder:
        """As `Decoder.open`.  Raises Unsupported except on macOS."""
        require_macos()
        claim(case)
        return CoreMLDecoder(case, lambda: Predicted(_of(case)))


def claim(case: Case) -> None:
    """Raise Unsupported for a batch or dtype that is not converted."""
    if case.batch != 1:
        raise Unsupported(f"models are converted for batch 1, got {case.batch}")
    # A float64 decoder is opened only for its dense runs.
    if case.dtype not in {"float32", "float64"}:
        raise Unsupported(f"models are converted in float32, got {case.dtype}")


def _interpreted(case: Case) -> Engine:
    return Interpreted(_kept(case.model, case.batch).program, _interpreter(case.model, case.batch))


@lru_cache(maxsize=32)
def _kept(model: Model, batch: int) -> Kept:
    """The program of `converted`, which is converted once for all processes."""
    what = {"model": repr(model), "batch": batch, "vocab": VOCAB, "seed": stable_seed(model.name)}
    return kept(model.name, [__name__], what, lambda: converted(model, batch))


@lru_cache(maxsize=32)
def _interpreter(model: Model, batch: int) -> Interpreter:
    from harness.mil.interpreter import Interpreter

    return Interpreter(_kept(model, batch).program)


def _of(case: Case) -> Any:
    return converted(case.model, case.batch)
