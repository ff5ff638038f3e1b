"""Estimates of KV bytes against what is allocated: equal, layer by layer, as integers.

Uses the true geometry of every model in the table.  A cache that takes tensors gets tensors on
torch's meta device, whose storages have sizes but no memory, so that 128K positions of a 27B model
fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.models import PUBLISHED, TINY
from harness.cases.schedules import Feed, Schedule
from harness.checks.drive import open_decoder, tokens_for
from harness.contract import CacheShape
from harness.estimate import model_id
from harness.estimate.geometry import Geometry, KVLayer, from_model
from harness.estimate.hf_write import to_config
from harness.estimate.profiles import (
    OwnRing,
    OwnStatic,
    Profile,
    Request,
    executorch,
    transformers,
)
from harness.estimate.resolve import resolve
from harness.estimate.table import CONTEXTS
from harness.export.exportable import quiet
from harness.schemes.growing import GrowingCache
from harness.schemes.sink.ring import SinkRingCache
from harness.schemes.static.cache import StaticLayout, model_cache_lens
from harness.subjects.executorch.body import model_args
from harness.subjects.executorch.lowering import lower
from harness.subjects.executorch.sink import Ring as RingSubject
from harness.subjects.executorch.sink import Sink as SinkSubject
from harness.subjects.transformers.caches import EagerDynamic, EagerStatic

META = torch.device("meta")
MODELS = [model.row for model in model_id.RELEASED]
DECODED = 5  # tokens behind the prompt: the first one, and some in the steady state


def states(layer: KVLayer, positions: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Keys and values of so many positions in fp16, on the meta device."""
    return tuple(
        torch.empty(batch, layer.kv_heads, positions, dim, dtype=torch.float16, device=META)
        for dim in (layer.k_dim, layer.v_dim)
    )


def owners(geometry: Geometry) -> Iterator[tuple[int, KVLayer]]:
    return ((i, layer) for i, layer in enumerate(geometry.layers) if layer.owns)


# transformers


def dynamic_cache(geometry: Geometry) -> object:
    from transformers import DynamicCache

    return DynamicCache(config=hf_config(geometry))


def hf_config(geometry: Geometry) -> object:
    """The model's config as transformers makes it."""
    from transformers import AutoConfig

    fields = to_config(geometry)
    return AutoConfig.for_model(fields.pop("model_type"), **fields)


def held(cache: object, geometry: Geometry) -> list[int]:
    """Storage bytes of each layer's keys and values."""
    return [
        storages(layer.keys, layer.values) if own.owns else 0
        for layer, own in zip(cache.layers, geometry.layers, strict=True)
    ]


def storages(*tensors: Tensor) -> int:
    """Bytes of the storages of some tensors, no two of which share one."""
    return sum(tensor.untyped_storage().nbytes() for tensor in tensors)


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.needs("transformers")
def test_transformers_dynamic_cache(name: str, context: int) -> None:
    """Measured after the prefill, after the first decoded token, and after more of them."""
    geometry, profile = resolve(name), transformers.Dynamic()
    cache, prompt = dynamic_cache(geometry), context - DECODED

    def feed(n: int) -> None:
        for i, layer in owners(geometry):
            cache.update(*states(layer, n), i)

    def estimate(phase: str) -> list[int]:
        return profile.layer_bytes(geometry, Request(context, prompt=prompt, phase=phase))

    feed(prompt)
    assert held(cache, geometry) == estimate("prefill") == estimate("peak")
    feed(1)
    assert held(cache, geometry) == estimate("first_decode")
    for _ in range(DECODED - 1):
        feed(1)
    assert held(cache, geometry) == estimate("steady")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.needs("transformers")
def test_transformers_static_cache(name: str) -> None:
    """Allocated for max_cache_len at once, at every context of the table, for two sequences."""
    from transformers import StaticCache

    geometry = resolve(name)
    for context in CONTEXTS:
        cache = StaticCache(config=hf_config(geometry), max_cache_len=context)
        for i, layer in owners(geometry):
            cache.layers[i].lazy_initialization(*states(layer, 1, batch=2))
        expected = transformers.Static().layer_bytes(geometry, Request(context, sequences=2))
        assert held(cache, geometry) == expected


# Real runs of tiny models, through the subjects that the rest of the harness checks.

_WITH_TRANSFORMERS = [name for name in TINY if "sink" not in name and name != "gemma4-static"]
RUNS = [
    *((EagerDynamic, transformers.Dynamic(), name) for name in _WITH_TRANSFORMERS),
    *((EagerStatic, transformers.Static(), name) for name in _WITH_TRANSFORMERS),
    *((RingSubject, executorch.Ring(), name) for name in ("mistral", "gemma3", "gpt-oss")),
    *((SinkSubject, executorch.Sink(n), f"llama3-sink{n}") for n in (2, 4, 8)),
]


@pytest.mark.parametrize(
    ("subject", "profile", "name"),
    [
        pytest.param(*run, id=f"{run[0].name}-{run[2]}", marks=pytest.mark.needs(run[0].package))
        for run in RUNS
    ],
)
def test_a_real_run(subject: type, profile: Profile, name: str) -> None:
    """A model is fed a prompt and then single tokens; its storages are measured after each."""
    model = TINY[name]
    window = model.turn
    prompt, singles = window + 3, window + 2
    steps = (Feed(prompt), *(Feed(1) for _ in range(singles)))
    case, geometry = Case(model, Schedule("estimate", steps)), from_model(model)
    decoder, tokens, seen = open_decoder(subject(), case), tokens_for(case), []
    for piece in tokens.split([step.n for step in steps], dim=1):
        decoder.feed(piece)
        seen.append(decoder.cache_bytes())
    for phase, at in (("prefill", 0), ("first_decode", 1), ("steady", -1)):
        request = Request(prompt + singles, 1, prompt, phase, k_type="f32", v_type="f32")
        assert seen[at] == profile.layer_bytes(geometry, request), phase


# ExecuTorch's caches with the true geometry


@pytest.mark.parametrize("name", [n for n in MODELS if n != "llama4-scout"])
@pytest.mark.needs("executorch")
def test_executorch_rings(name: str) -> None:
    """`RingKVCache` in sliding layers, `KVCache` in full ones; one layer of each kind at 32768."""
    from executorch.examples.models.llama.attention import KVCache, RingKVCache

    geometry, context = resolve(name), 32_768
    said = executorch.Ring().layer_bytes(geometry, Request(context))
    for layer, nbytes in {(x, n) for x, n in zip(geometry.layers, said, strict=True) if x.owns}:
        kind = RingKVCache if layer.law.window else KVCache
        length = layer.law.window or context
        cache = kind(1, length, layer.kv_heads, layer.k_dim, False, torch.float16)
        assert storages(cache.k_cache, cache.v_cache) == nbytes


@pytest.mark.parametrize("sink_size", [0, 4])
@pytest.mark.parametrize("name", ["llama3-8b", "gemma3-27b", "gpt-oss-20b"])
@pytest.mark.needs("executorch")
def test_executorch_sinks(name: str, sink_size: int) -> None:
    """`KVCacheWithAttentionSink` of 2044 keys in every layer, whatever the model's own windows."""
    from executorch.examples.models.llama.source_transformation.attention_sink import (
        KVCacheWithAttentionSink,
    )

    geometry, window = resolve(name), 2044
    layer = geometry.layers[0]
    cache = KVCacheWithAttentionSink(
        n_heads=layer.kv_heads,
        head_dim=layer.k_dim,
        enable_dynamic_shape=False,
        rope=None,
        window_size=window,
        sink_size=sink_size,
        dtype=torch.float16,
    )
    said = executorch.Sink(sink_size, window).layer_bytes(geometry, Request(131_072))
    assert said == [storages(cache.k_cache, cache.v_cache)] * len(geometry.layers)


@pytest.mark.parametrize("name", ["mistral-7b-v0.1", "gemma3-1b", "gpt-oss-20b", "qwen2.5-7b"])
@pytest.mark.needs("executorch")
def test_executorch_static_manager(name: str) -> None:
    """The I/O manager's caches, with the lengths that `resolve_cache_lens` gives."""
    from executorch.examples.models.llama.static_attention import StaticAttentionIOManager

    context, input_len = 8192, 64
    model = replace(PUBLISHED[name], n_heads=PUBLISHED[name].n_kv_heads)
    args = model_args(model, 64, context, attention_type="static_mha")
    lens = list(model_cache_lens(model, context, input_len))
    manager = StaticAttentionIOManager(args, input_len, lens, dtype=torch.float16)
    allocated = [0] * model.n_layers
    for caches in (manager.k_caches, manager.v_caches):
        for key, cache in caches.items():  # keys read "l<layer>,h<head>"
            allocated[int(key.partition(",")[0][1:])] += cache.untyped_storage().nbytes()
    profile = executorch.Static(input_len)
    assert allocated == profile.layer_bytes(resolve(name), Request(context))


class Step(torch.nn.Module):
    """One token through one of the release's caches."""

    def __init__(self, cache: torch.nn.Module) -> None:
        super().__init__()
        self.cache = cache

    def forward(self, position: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self.cache.update(position, k, v)
        return keys[:, :, :1] + values[:, :, :1]


def lowered(geometry: Geometry, at: int, context: int) -> tuple[int, int, int]:
    """A layer's cache as a program: bytes of its buffers, of its whole plan, and the estimate."""
    from executorch.examples.models.llama.attention import KVCache, RingKVCache

    layer = geometry.layers[at]
    kind, length = (RingKVCache, layer.law.window) if layer.law.window else (KVCache, context)
    cache = kind(1, length, layer.kv_heads, layer.k_dim, False, torch.float16)
    one = torch.zeros(1, layer.kv_heads, 1, layer.k_dim, dtype=torch.float16)
    with quiet():
        program = torch.export.export(Step(cache), (torch.tensor([3]), one, one.clone()))
        facts = lower({"forward": program}, "portable").facts
    buffers = facts["buffers"]["forward"]
    states = sum(size for name, size in buffers.items() if name.endswith(("k_cache", "v_cache")))
    (said,) = executorch.Ring().layer_bytes(replace(geometry, layers=(layer,)), Request(context))
    return states, facts["planned"]["forward"], said


@pytest.mark.needs("executorch")
def test_executorch_planned_bytes() -> None:
    """Buffers of a lowered program are the estimate; its plan grows by twice as much.

    The release's update is functional once lowered: beside each buffer the plan holds its next
    value, which is copied back.
    """
    geometry = resolve("gemma3-1b")
    full = next(i for i, layer in enumerate(geometry.layers) if layer.kind == "full")
    ring = lowered(geometry, 0, 2048)
    short, long = (lowered(geometry, full, context) for context in (1024, 2048))
    for buffers, planned, said in (ring, short, long):
        assert buffers == said
        assert planned >= 2 * said
    assert long[1] - short[1] == 2 * (long[2] - short[2])


# The harness's own schemes


@pytest.mark.parametrize("name", MODELS)
def test_our_static_layout(name: str) -> None:
    """The caches that `StaticLayout` makes, for each model and context of the table."""
    model, geometry = PUBLISHED[name], resolve(name)
    for context in CONTEXTS:
        lens = model_cache_lens(model, context, 32)
        layout = StaticLayout(model, lens, dtype=torch.float16)
        with META:
            made = [*layout.empty_caches("k").values(), *layout.empty_caches("v").values()]
        said = OwnStatic(32).layer_bytes(geometry, Request(context))
        assert sum(cache.nbytes for cache in made) == sum(said)
        assert [layout.layer_bytes(i) for i in range(model.n_layers)] == said


@pytest.mark.parametrize(
    ("name", "chunk"),
    [*((n, 512) for n in MODELS if n != "llama4-scout"), ("gemma3-1b", 1), ("gemma3-1b", 100_000)],
)
def test_our_rings(name: str, chunk: int) -> None:
    """`SinkRingCache` in sliding layers, `GrowingCache` in full ones, measured after each phase."""
    geometry, prompt, context = resolve(name), 8000, 8000 + DECODED
    profile = OwnRing(chunk)
    made = {i: own_cache(layer, context, chunk) for i, layer in owners(geometry)}

    def feed(n: int) -> None:
        for i, layer in owners(geometry):
            made[i].update(*states(layer, n))

    def compare(phase: str) -> None:
        sizes = [made[i].nbytes() if i in made else 0 for i in range(len(geometry.layers))]
        assert sizes == profile.layer_bytes(geometry, Request(context, 1, prompt, phase))

    feed(prompt)
    compare("prefill")
    feed(1)
    compare("first_decode")
    for _ in range(DECODED - 1):
        feed(1)
    compare("steady")


def own_cache(layer: KVLayer, context: int, chunk: int) -> SinkRingCache | GrowingCache:
    """An empty cache of this package for a layer."""
    shape = CacheShape(1, layer.kv_heads, layer.k_dim, context, chunk, torch.float16, META)
    return SinkRingCache(layer.law, shape) if layer.law.window else GrowingCache(layer.law, shape)
