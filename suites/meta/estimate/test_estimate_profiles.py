"""Profiles: figures measured elsewhere, pinned; and what must hold for any geometry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.estimate import model_id
from harness.estimate.elements import ELEMENTS
from harness.estimate.geometry import Geometry, KVLayer
from harness.estimate.profiles import (
    PHASES,
    PROFILES,
    Dense,
    Heuristic,
    Honours,
    Ideal,
    LlamaCpp,
    Mlx,
    OwnRing,
    Profile,
    Request,
    RequestError,
    UnsupportedCache,
    Vllm,
    executorch,
    mlx,
    transformers,
)
from harness.estimate.profiles.base import slot_bytes
from harness.estimate.profiles.heuristic import effective_context, heuristic_bytes
from harness.law import Layer

K128 = 131_072
MIB = 2**20

#: Profile, request, model, MiB.  Those of llama.cpp were read from its log.
MEASURED = [
    (LlamaCpp(), Request(K128), "gemma3-27b", 10_864),
    (LlamaCpp(swa_full=True), Request(K128), "gemma3-27b", 63_488),
    (LlamaCpp(n_ubatch=2048), Request(K128), "gemma3-27b", 11_488),
    (LlamaCpp(), Request(K128, sequences=4), "gemma3-27b", 12_736),
    (LlamaCpp(unified=True), Request(K128, sequences=4), "gemma3-27b", 12_112),
    (LlamaCpp(), Request(K128, k_type="q8_0", v_type="q8_0"), "gemma3-27b", 5771.5),
    (LlamaCpp(), Request(8192), "gemma3-27b", 1264),
    (LlamaCpp(), Request(8192), "gemma2-9b", 2100),
    (LlamaCpp(), Request(8192), "gemma4-e2b", 60),
    (LlamaCpp(flash_attention=False), Request(8192), "gemma4-e2b", 66),
    (LlamaCpp(), Request(K128), "gemma4-e2b", 780),
    (LlamaCpp(), Request(K128), "gemma4-31b", 11_440),
    (LlamaCpp(flash_attention=False), Request(K128), "gemma4-31b", 16_560),
    (LlamaCpp(), Request(K128), "gemma4-26b", 2860),
    (LlamaCpp(), Request(K128), "gpt-oss-20b", 3090),
    (LlamaCpp(), Request(K128), "mistral-7b-v0.1", 16_384),
    (Dense(), Request(K128), "gemma3-27b", 63_488),
    (Ideal(), Request(K128), "gemma3-27b", 10_656),
    (Mlx(), Request(K128), "gemma3-27b", 10_656),
    (transformers.Static(), Request(K128), "gemma3-27b", 10_656),
    (Vllm(), Request(K128), "gemma3-27b", 13_990.5),
    (executorch.Ring(), Request(K128), "gemma3-27b", 11_072),
]


@pytest.mark.parametrize(("profile", "request_", "row", "mib"), MEASURED)
def test_measured_figures(profile: Profile, request_: Request, row: str, mib: float) -> None:
    assert profile.total(model_id.read(row), request_) == mib * MIB


def test_mlx_holds_a_window_and_a_chunk_of_the_prompt_at_its_peak() -> None:
    """Sliding layers up to W - 1 + S slots, trimmed at the first decode."""
    geometry = model_id.read("gemma3-27b")
    slot = 16 * (128 + 128) * 2
    peak = Mlx().layer_bytes(geometry, Request(K128, phase="peak"))
    assert peak[0] == (1024 - 1 + 2048) * slot
    for phase in ("first_decode", "steady"):
        assert Mlx().layer_bytes(geometry, Request(K128, phase=phase))[0] == 1024 * slot
    assert (
        Mlx(prefill_step=512).layer_bytes(geometry, Request(K128, phase="peak"))[0] == 1535 * slot
    )


@pytest.mark.parametrize(
    ("family", "llama_cpp", "mlx"),
    [
        ("gemma2-2b", Honours.YES, Honours.NO),
        ("gemma3-4b", Honours.YES, Honours.YES),
        ("gemma3n-e2b", Honours.YES, Honours.YES),
        ("gemma4-31b", Honours.YES, Honours.YES),
        ("gpt-oss-20b", Honours.YES, Honours.YES),
        ("command-r7b", Honours.YES, Honours.YES),
        ("mistral-7b-v0.1", Honours.NO, Honours.NO),
        ("phi3-mini-4k", Honours.NO, Honours.NO),
        ("llama4-scout", Honours.YES, Honours.YES),
        ("mistral-7b-v0.3", Honours.NOTHING, Honours.NOTHING),
        ("qwen2.5-7b", Honours.NOTHING, Honours.NOTHING),
    ],
)
def test_who_honours_which_window(family: str, llama_cpp: Honours, mlx: Honours) -> None:
    geometry = model_id.read(family)
    assert (LlamaCpp().honours(geometry), Mlx().honours(geometry)) == (llama_cpp, mlx)
    expected = Honours.YES if geometry.bounded else Honours.NOTHING
    assert transformers.Dynamic().honours(geometry) is expected


def test_a_family_that_nobody_has_looked_at_is_promised_nothing() -> None:
    """Unknown is counted as no, because an estimate that is too small is worse."""
    geometry = replace(model_id.read("gemma3-27b"), family="brand-new")
    dense = Dense().total(geometry, Request(K128))
    for profile in (LlamaCpp(), Mlx(), Vllm()):
        assert profile.honours(geometry) is Honours.UNKNOWN
        assert profile.total(geometry, Request(K128)) == dense
    assert Heuristic(27).total(geometry, Request(K128)) == 12_683_575_296


# The rule of thumb, byte for byte.


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ((27, K128), 12_683_575_296),
        ((27, K128, 1024, 1 / 6), 2_196_504_575),
        ((7, K128), 3_288_334_336),
        ((7, 4096, 4096, 0.0), heuristic_bytes(7, 4096)),
        ((7, 2048, 4096, 0.5), heuristic_bytes(7, 2048)),
        ((7, K128, 4096, 0.0), heuristic_bytes(7, 4096)),
        ((7, K128, 4096, None), heuristic_bytes(7, K128)),
        ((7, K128, None, 0.5), heuristic_bytes(7, K128)),
        ((7, K128, 4096, 7.0), heuristic_bytes(7, K128)),
        ((99, 8192, None, None, 2), heuristic_bytes(8, 8192)),
    ],
)
def test_the_rule_of_thumb(args: tuple[float, ...], expected: int) -> None:
    assert heuristic_bytes(*args) == expected


@given(st.integers(1, 10**6), st.none() | st.integers(1, 10**6), st.none() | st.floats(0, 1))
def test_the_effective_context_only_lowers(
    context: int, window: int | None, ratio: float | None
) -> None:
    effective = effective_context(context, window, ratio)
    # A blend of two numbers in floating point may round up past the larger by one unit.
    assert effective <= context * (1 + 2**-52)
    if window is None or ratio is None:
        assert effective == context


def test_the_rule_of_thumb_refuses_what_it_cannot_know() -> None:
    geometry = model_id.read("gemma3-27b")
    with pytest.raises(UnsupportedCache, match="number of parameters"):
        Heuristic().total(geometry, Request(8192))
    with pytest.raises(UnsupportedCache, match="knows no layers"):
        Heuristic(27).layer_bytes(geometry, Request(8192))
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(RequestError, match="billions must be a number"):
            Heuristic(wrong)


# Requests and types


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Request(0), "context must be an integer in 1…134217728, got 0"),
        (lambda: Request(True), "context must be an integer"),
        (lambda: Request(1 << 40), "context must be an integer"),
        (lambda: Request(8, sequences=0), "sequences must be an integer in 1…65536, got 0"),
        (lambda: Request(8, prompt=9), "prompt (context=8) must be an integer in 1…8, got 9"),
        (lambda: Request(8, phase="late"), "phase must be one of peak, prefill"),
        (lambda: Request(8, k_type="q3"), "cache type must be one of f32, f16"),
        (lambda: LlamaCpp(n_ubatch=0), "n_ubatch must be an integer"),
        (lambda: Mlx(prefill_step=0), "prefill_step must be an integer"),
        (lambda: Vllm(block=0), "block must be an integer"),
        (lambda: executorch.Sink(-1), "sink must be an integer in 0…"),
        (lambda: executorch.Sink(4, 0), "window must be an integer in 1…"),
        (lambda: executorch.Static(0), "input_len must be an integer"),
        (lambda: OwnRing(0), "chunk must be an integer"),
    ],
)
def test_what_cannot_be_asked(make: Callable[[], object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        make()
    assert message in str(caught.value)


def test_types_that_a_runtime_does_not_store() -> None:
    gemma, mistral = model_id.read("gemma3-27b"), model_id.read("mistral-7b-v0.3")
    quantized = Request(8192, k_type="mlx_q8", v_type="mlx_q8")
    assert Mlx().total(mistral, quantized) == 32 * 8192 * 8 * 2 * (128 // 64) * (64 + 4)
    for profile, geometry, request, message in (
        (Mlx(), gemma, quantized, "cannot be quantized"),
        (Mlx(), mistral, replace(quantized, phase="peak"), "quantizes after each chunk"),
        (Mlx(), mistral, replace(quantized, v_type="f16"), "mlx_q8 keys and f16 values"),
        (LlamaCpp(), gemma, quantized, "llama.cpp has no cache of mlx_q8; it has bf16, f16"),
        (LlamaCpp(flash_attention=False), gemma, Request(9, v_type="q8_0"), "with flash attention"),
        (transformers.Dynamic(), gemma, Request(9, k_type="q8_0"), "no cache of q8_0"),
        (executorch.Static(), gemma, Request(32), "leaves no room for a cache"),
        (executorch.Sink(), gemma, Request(32), "give its window"),
    ):
        with pytest.raises(UnsupportedCache) as caught:
            profile.layer_bytes(geometry, request)
        assert message in str(caught.value)


def test_blocks_of_quantized_types_are_those_of_ggml() -> None:
    """Numbers and bytes per block agree with the gguf package."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"):
        size = GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]]
        assert (ELEMENTS[name].block, ELEMENTS[name].nbytes) == size
    with pytest.raises(ValueError, match="blocks of 32 numbers, which do not divide 40"):
        ELEMENTS["q8_0"].bytes_of(40)


# What holds for any geometry


def a_layer(window: int | None, kv_heads: int, k_dim: int, v_dim: int) -> KVLayer:
    return KVLayer(Layer(window=window), kv_heads, k_dim, v_dim)


LAYERS = st.builds(
    a_layer,
    st.none() | st.integers(2, 5000),
    st.integers(1, 16),
    st.sampled_from([64, 96, 128]),
    st.sampled_from([64, 128]),
)
GEOMETRIES = st.builds(
    lambda layers: Geometry("drawn", "gemma3", tuple(layers)),
    st.lists(LAYERS, min_size=1, max_size=5),
)
CONTEXTS = st.integers(64, 20_000)
PHASE = st.sampled_from(PHASES)
ALL = [kind() for name, kind in PROFILES.items() if name not in {"heuristic", "executorch.sink"}]
#: Profiles that allocate for the whole context in advance, or only what it fills.
MONOTONIC = [p for p in ALL if p.name != "mlx-lm"]
#: Profiles that reserve no more than the context.
BELOW_DENSE = [Ideal(), transformers.Dynamic(), transformers.Static(), executorch.Static()]


@pytest.mark.parametrize("profile", MONOTONIC, ids=lambda p: p.name)
@given(geometry=GEOMETRIES, contexts=st.lists(CONTEXTS, min_size=2, max_size=2), phase=PHASE)
def test_monotonic_in_the_context(
    profile: Profile, geometry: Geometry, contexts: list[int], phase: str
) -> None:
    short, long = sorted(contexts)
    less = profile.layer_bytes(geometry, Request(short, phase=phase))
    more = profile.layer_bytes(geometry, Request(long, phase=phase))
    assert all(a <= b for a, b in zip(less, more, strict=True))


@given(geometry=GEOMETRIES, contexts=st.lists(CONTEXTS, min_size=2, max_size=2))
def test_mlx_is_monotonic_while_it_decodes(geometry: Geometry, contexts: list[int]) -> None:
    """For a given prompt.  A longer prompt may leave fewer slots after its last chunk."""
    short, long = sorted(contexts)
    less = Mlx().layer_bytes(geometry, Request(short, prompt=64))
    more = Mlx().layer_bytes(geometry, Request(long, prompt=64))
    assert all(a <= b for a, b in zip(less, more, strict=True))


@pytest.mark.parametrize("profile", MONOTONIC, ids=lambda p: p.name)
@given(layer=LAYERS, windows=st.lists(st.integers(2, 5000), min_size=2, max_size=2), n=CONTEXTS)
def test_monotonic_in_the_window(
    profile: Profile, layer: KVLayer, windows: list[int], n: int
) -> None:
    sizes = [
        profile.total(
            Geometry("drawn", "gemma3", (replace(layer, law=Layer(window=w)),)), Request(n)
        )
        for w in sorted(windows)
    ]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("profile", BELOW_DENSE, ids=lambda p: p.name)
@given(geometry=GEOMETRIES, context=CONTEXTS)
def test_never_above_dense(profile: Profile, geometry: Geometry, context: int) -> None:
    request = Request(context)
    dense = Dense().layer_bytes(geometry, request)
    got = profile.layer_bytes(geometry, request)
    assert all(a <= b for a, b in zip(got, dense, strict=True))


@given(geometry=GEOMETRIES, context=CONTEXTS, sequences=st.integers(1, 5), unified=st.booleans())
def test_llama_cpp_never_above_its_full_cache(
    geometry: Geometry, context: int, sequences: int, unified: bool
) -> None:
    request = Request(context, sequences)
    full = LlamaCpp(swa_full=True, unified=unified).layer_bytes(geometry, request)
    got = LlamaCpp(unified=unified).layer_bytes(geometry, request)
    assert all(a <= b for a, b in zip(got, full, strict=True))


@pytest.mark.parametrize("profile", [*BELOW_DENSE, LlamaCpp(), Mlx()], ids=lambda p: p.name)
@given(layer=LAYERS, context=CONTEXTS, beyond=st.integers(0, 3000))
def test_a_window_as_long_as_the_context_is_dense(
    profile: Profile, layer: KVLayer, context: int, beyond: int
) -> None:
    """Its bytes equal those that the same runtime takes for a full layer.

    mlx-lm differs: its ring grows by 256 slots from the end of the prompt, its full cache by whole
    steps.
    """
    wide = replace(layer, law=Layer(window=context + beyond))
    full = replace(layer, law=Layer())
    sizes = [
        profile.total(Geometry("drawn", "gemma3", (x,)), Request(context)) for x in (wide, full)
    ]
    if isinstance(profile, Mlx):
        assert sizes[0] < sizes[1] + 256 * slot_bytes(layer, Request(context))
    else:
        assert sizes[0] == sizes[1]


@pytest.mark.parametrize("profile", ALL, ids=lambda p: p.name)
@given(geometry=GEOMETRIES, context=CONTEXTS, phase=PHASE)
def test_additive_over_layers(
    profile: Profile, geometry: Geometry, context: int, phase: str
) -> None:
    """A layer alone takes the same bytes as among others."""
    request = Request(context, phase=phase)
    alone = [
        profile.total(replace(geometry, layers=(layer,)), request) for layer in geometry.layers
    ]
    honoured = profile.honours(geometry)
    assert profile.layer_bytes(geometry, request) == alone, honoured
    assert profile.total(geometry, request) == sum(alone)


@pytest.mark.parametrize(
    "profile", [p for p in ALL if p.name != "harness.ring"], ids=lambda p: p.name
)
@given(geometry=GEOMETRIES, context=CONTEXTS, n=st.integers(2, 6))
def test_sequences_multiply(profile: Profile, geometry: Geometry, context: int, n: int) -> None:
    """Bytes are proportional to sequences, except in llama.cpp, which divides the context."""
    one = profile.layer_bytes(geometry, Request(context))
    several = profile.layer_bytes(geometry, Request(context, sequences=n))
    if isinstance(profile, LlamaCpp):
        full = LlamaCpp(swa_full=True).layer_bytes(geometry, Request(context, sequences=n))
        assert sum(several) <= sum(full)
    else:
        assert several == [n * size for size in one]


@given(geometry=GEOMETRIES, context=CONTEXTS, phase=PHASE)
def test_layers_that_share_take_nothing(geometry: Geometry, context: int, phase: str) -> None:
    shared = replace(geometry.layers[0], reads=0)
    more = replace(geometry, layers=(*geometry.layers, shared))
    for profile in ALL:
        sizes = profile.layer_bytes(more, Request(context, phase=phase))
        assert sizes[-1] == 0


def fed_one_by_one(kind: str, reach: int, prompt: int, context: int, chunk: int, phase: str) -> int:
    """Slots of a cache of mlx-lm, from every single feed."""
    feed, held, most = mlx._KINDS[kind], mlx._Held(), 0
    for at in range(0, prompt - 1, chunk):
        held = feed(held, min(chunk, prompt - 1 - at), reach)
        most = max(most, held.slots)
    for _ in range({"first_decode": 1, "steady": context - prompt + 1}.get(phase, 0)):
        held = feed(held, 1, reach)
    return most if phase == "peak" else held.slots


@settings(max_examples=300)
@given(
    st.sampled_from(["full", "sliding", "chunked"]),
    st.integers(1, 1200) | st.sampled_from([1, 2, 255, 256, 257, 511, 512, 513]),
    st.integers(1, 1500),
    st.integers(0, 1500),
    st.integers(1, 700),
    st.sampled_from(PHASES),
)
@example("chunked", 256, 257, 1, 1, "steady")
@example("sliding", 512, 1025, 0, 512, "prefill")
def test_what_mlx_holds_is_computed_as_if_token_by_token(
    kind: str, reach: int, prompt: int, more: int, chunk: int, phase: str
) -> None:
    asked = (kind, reach, prompt, prompt + more, chunk, phase)
    assert mlx._slots(*asked) == fed_one_by_one(*asked)
