"""Estimates of KV bytes against what llama.cpp and mlx-lm allocate: equal integers, layer by layer.

The wheels are those of the extra `runtimes`.  llama.cpp opens GGUF files of the true key and value
shapes, and both its log and its own methods are read; mlx-lm's own models are fed at true size.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cases.case import Case
from harness.cases.models import PUBLISHED, tiny
from harness.cases.schedules import Feed, Schedule, chunks
from harness.checks.bounds import reference_for
from harness.checks.drive import run_decoder, tokens_for
from harness.estimate.geometry import Geometry, from_model
from harness.estimate.gguf_file import read_file
from harness.estimate.profiles.base import Request, UnsupportedCache
from harness.estimate.profiles.llama_cpp import LlamaCpp
from harness.estimate.profiles.mlx import Mlx
from harness.reference.tolerance import SEPARATION, row_error
from harness.runtimes import gguf_file, llama_sequences, mlx_models
from harness.runtimes.llama_context import LlamaContext, LlamaModel, Options
from harness.runtimes.llama_library import CACHE_TYPES, LlamaError
from harness.subjects.llama_cpp.decoder import LlamaCppSubject
from harness.subjects.mlx.decoder import MlxSubject

pytestmark = pytest.mark.needs("xllamacpp", "mlx_lm")

MIB = 1 << 20
K8, K128 = 8192, 131072
#: Bytes up to which caches are really allocated; above, llama.cpp only computes the sizes.
ALLOCATED_MOST = 512 * MIB

# --- llama.cpp -------------------------------------------------------------------------------

#: Sizes measured earlier, in MiB: seven of Gemma 3 27B, seven of others, two without flash.
MEASURED: tuple[tuple[str, Options, float], ...] = (
    ("gemma3-27b", Options(K128), 10864),
    ("gemma3-27b", Options(K128, swa_full=True), 63488),
    ("gemma3-27b", Options(K128, n_ubatch=2048), 11488),
    ("gemma3-27b", Options(K128, n_seq_max=4), 12736),
    ("gemma3-27b", Options(K128, n_seq_max=4, unified=True), 12112),
    ("gemma3-27b", Options(K128, k_type="q8_0", v_type="q8_0"), 5771.5),
    ("gemma3-27b", Options(K8), 1264),
    ("gemma2-9b", Options(K8), 2100),
    ("gemma4-e2b", Options(K8), 60),
    ("gemma4-e2b", Options(K128), 780),
    ("gemma4-31b", Options(K128), 11440),
    ("gemma4-26b", Options(K128), 2860),
    ("gpt-oss-20b", Options(K128), 3090),
    ("mistral-7b-v0.1", Options(K128), 16384),
    ("gemma4-e2b", Options(K8, flash="off"), 66),
    ("gemma4-31b", Options(K128, flash="off"), 16560),
)

#: Draws of options for each model: 22 models, 4 each.
DRAWS = 4

Opened = Callable[[str, bool], LlamaModel]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF file of each published model."""
    made = tmp_path_factory.mktemp("gguf")
    for name, model in PUBLISHED.items():
        gguf_file.write_geometry(model, made / f"{name}.gguf")
    return made


@pytest.fixture
def opened(folder: Path) -> Iterator[Opened]:
    """Opens the file of a model, and closes it after the test."""
    models: list[LlamaModel] = []

    def open_(name: str, allocate: bool) -> LlamaModel:
        models.append(LlamaModel(folder / f"{name}.gguf", allocate=allocate))
        return models[-1]

    yield open_
    for model in models:
        model.close()


def estimate(geometry: Geometry, options: Options) -> list[int]:
    """The profile's bytes per layer for a context of these options."""
    runtime = LlamaCpp(
        n_batch=options.n_batch,
        n_ubatch=options.n_ubatch,
        swa_full=options.swa_full,
        unified=options.unified,
        flash_attention=options.flash != "off",
    )
    request = Request(
        options.n_ctx, options.n_seq_max, k_type=options.k_type, v_type=options.v_type
    )
    return runtime.layer_bytes(geometry, request)


def allocation(model: LlamaModel, options: Options, n_layers: int, allocate: bool) -> list[int]:
    """llama.cpp's bytes per layer; if it allocates, its buffers must have just these bytes."""
    with LlamaContext(model, options) as context:
        for held in context.caches():  # which compares them with the log
            assert held.allocated == (held.total if allocate else 0)
        return context.layer_bytes(n_layers)


@pytest.mark.parametrize(("name", "options", "mib"), MEASURED)
def test_what_was_measured_before(
    opened: Opened, folder: Path, name: str, options: Options, mib: float
) -> None:
    """Estimate, allocation and the figure measured before are equal."""
    said = estimate(read_file(folder / f"{name}.gguf"), options)
    allocate = sum(said) <= ALLOCATED_MOST
    held = allocation(opened(name, allocate), options, len(said), allocate)
    assert held == said
    assert sum(held) == mib * MIB


def draws(name: str) -> list[Options]:
    """Options at random, the same in every run."""
    rng = random.Random(f"options of {name}")

    def one() -> Options:
        flash = rng.choice(("auto", "on", "off"))
        return Options(
            n_ctx=rng.choice((rng.randrange(1, 9000), 4096, K8, 32768, K128)),
            n_batch=rng.choice((32, 512, 2048)),
            n_ubatch=rng.choice((1, 16, 64, 512, 2048)),
            n_seq_max=rng.choice((1, 1, 2, 3, 4, 7)),
            unified=rng.random() < 0.5,
            swa_full=rng.random() < 0.3,
            flash=flash,
            k_type=rng.choice(sorted(CACHE_TYPES)),
            v_type="f16" if flash == "off" else rng.choice(("f16", "q8_0", "q4_0")),
        )

    return [one() for _ in range(DRAWS)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_options_at_random(opened: Opened, folder: Path, name: str) -> None:
    """Context, batches, sequences, unified, swa_full, types: estimate == allocation each time.

    The geometry comes from the table, and then from the GGUF reader.
    """
    model, geometry = opened(name, False), from_model(PUBLISHED[name])
    read = read_file(folder / f"{name}.gguf")
    for options in draws(name):
        said = estimate(geometry, options)
        assert allocation(model, options, len(said), False) == said, options
        assert estimate(read, options) == said, options


def test_working_a_size_out_and_allocating_it_are_one(opened: Opened) -> None:
    """What llama.cpp says without allocating is what it allocates, in every kind of buffer."""
    for name in ("gemma3-1b", "gemma4-e2b", "gpt-oss-20b", "qwen2.5-7b"):
        options, n_layers = Options(2048, n_seq_max=2), PUBLISHED[name].n_layers
        worked_out = allocation(opened(name, False), options, n_layers, False)
        assert allocation(opened(name, True), options, n_layers, True) == worked_out


def test_what_llama_cpp_refuses_the_profile_refuses(opened: Opened) -> None:
    """Quantized values need flash attention."""
    options = Options(K8, flash="off", v_type="q8_0")
    with pytest.raises(LlamaError, match="quantized V cache"):
        LlamaContext(opened("gemma3-1b", False), options)
    with pytest.raises(UnsupportedCache, match="flash attention"):
        estimate(from_model(PUBLISHED["gemma3-1b"]), options)


# --- mlx-lm ----------------------------------------------------------------------------------

STEP = Mlx().prefill_step
DECODED = 20


@pytest.mark.parametrize("prompt", [700, 2 * STEP + 1, K128 - DECODED])
@pytest.mark.parametrize("name", PUBLISHED)
def test_mlx_caches(name: str, prompt: int) -> None:
    """Layer by layer: at the peak, after the prompt, after the first token, and later."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    model, geometry = PUBLISHED[name], from_model(PUBLISHED[name])
    built = mlx_models.build(model)
    cache = make_prompt_cache(built)
    request = Request(prompt + DECODED - 1, prompt=prompt)

    def held() -> list[int]:
        return mlx_models.cache_bytes(model, cache)

    def said(phase: str) -> list[int]:
        return Mlx().layer_bytes(geometry, replace(request, phase=phase))

    peak = [0] * model.n_layers
    for step in chunks(prompt - 1, (STEP,)):
        mlx_models.feed(built, cache, step.n)
        peak = [max(both) for both in zip(peak, held(), strict=True)]
    assert peak == said("peak")
    assert held() == said("prefill")
    mlx_models.feed(built, cache, 1)
    assert held() == said("first_decode")
    for _ in range(DECODED - 1):
        mlx_models.feed(built, cache, 1)
    assert held() == said("steady")
    assert mx.get_active_memory() < MIB  # nothing was computed


def test_mlx_says_what_it_allocates() -> None:
    """When a model is really run, the arrays' bytes are those of MLX's allocator."""
    import mlx.core as mx

    model = tiny("gemma3")
    schedule = Schedule("prompt, then tokens", (Feed(400), *chunks(20, (1,))))
    case = Case(model, schedule)
    decoder, tokens = MlxSubject().open(case), tokens_for(case)
    decoder.feed(tokens[:, :1])  # loads weights and constants
    decoder.reset()
    gc.collect()
    before = mx.get_active_memory()
    for a, b in schedule.spans():
        decoder.feed(tokens[:, a:b])
        gc.collect()
        assert mx.get_active_memory() - before == sum(decoder.cache_bytes()), b
    assert decoder.cache_bytes() == Mlx(prefill_step=400).layer_bytes(
        from_model(model), Request(420, prompt=401, k_type="f32", v_type="f32")
    )


# --- eviction and rollback in llama.cpp ------------------------------------------------------

WINDOW, CHUNK, FED = 40, 64, 700
WIDE = replace(tiny("gemma3"), name=f"gemma3-w{WINDOW}", window=WINDOW)


class OfTheWideModel(LlamaCppSubject):
    """llama.cpp with a window that no model in the table has."""

    models = (WIDE.name,)


def test_llama_cpp_forgets_and_is_right_and_rewinds_in_silence() -> None:
    """A window of 40 in 256 cells: 700 tokens are right throughout; a far rewind is not.

    ``llama_memory_seq_rm`` grants it anyway; ``llama_memory_seq_pos_min`` would have warned.
    """
    subject, case = OfTheWideModel(), Case(WIDE, Schedule("chunks", chunks(FED, (CHUNK,))))
    decoder, tokens = subject.open(case), tokens_for(case)
    reference = reference_for(subject, decoder, case, tokens)
    assert reference.margin is not None
    assert reference.margin >= SEPARATION
    run = run_decoder(decoder, tokens, case.schedule)
    assert (row_error(run.logits, reference.exact) <= reference.bound).all()

    first_held = llama_sequences.first_held(decoder.context, 0)
    assert 0 < first_held <= FED - WINDOW + 1  # it has forgotten, no more than it may
    for length, right in ((first_held + WINDOW - 1, True), (first_held + WINDOW - 2, False)):
        decoder.rewind(length)  # granted either way
        told = 0 <= llama_sequences.first_held(decoder.context, 0) <= length - WINDOW + 1
        assert told is right
        row = slice(length, length + 1)
        error = row_error(decoder.feed(tokens[:, row]), reference.exact[:, row])
        assert bool((error <= reference.bound[row]).all()) is right, (length, float(error))
