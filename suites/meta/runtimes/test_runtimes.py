"""The drivers of released runtimes: the parts that work without their wheels."""

from __future__ import annotations

import ctypes
from importlib import util
from pathlib import Path

import pytest
import torch

from harness.cases.models import PUBLISHED, tiny
from harness.estimate.geometry import from_model
from harness.estimate.gguf_file import read_file
from harness.reference.oracle import attention
from harness.reference.tolerance import moved
from harness.run import registry
from harness.runtimes import gemma3, gguf_file, llama_library, llama_log, mlx_models
from harness.runtimes.llama_library import LlamaError

MIB = 1 << 20

LOG = """\
llama_kv_cache_iswa: creating non-SWA KV cache, size = 8192 cells
llama_kv_cache: layer   0: filtered
llama_kv_cache: layer   1: dev = CPU
llama_kv_cache:        CPU KV buffer size =    32.00 MiB
llama_kv_cache: size =   32.00 MiB (  8192 cells,   1 layers,  1/1 seqs), \
K (f16):   16.00 MiB, V (f16):   16.00 MiB
llama_kv_cache_iswa: creating     SWA KV cache, size = 1536 cells
llama_kv_cache: layer   0: dev = CPU
llama_kv_cache: layer   1: filtered
llama_kv_cache:        CPU KV buffer size =     0.00 MiB
llama_kv_cache: size =    4.59 MiB (  1536 cells,   1 layers,  4/4 seqs), \
K (q8_0):    1.59 MiB, V (f16):    3.00 MiB
"""


def test_a_log_is_read_cache_by_cache() -> None:
    full, sliding = llama_log.read(LOG.splitlines())
    assert (full.cells, full.streams, full.layers) == (8192, 1, (1,))
    assert (full.k_mib, full.v_mib, full.buffer_mib) == (16, 16, 32)
    assert (sliding.cells, sliding.streams, sliding.layers) == (1536, 4, (0,))
    assert (sliding.k_type, sliding.v_type, sliding.buffer_mib) == ("q8_0", "f16", 0)


def test_a_logged_size_is_that_integer_and_no_other() -> None:
    _, sliding = llama_log.read(LOG.splitlines())
    keys, values = 1536 * 1024 // 32 * 34, 3 * MIB
    assert sliding.agrees(keys, values)
    cell = 1024 // 32 * 34
    assert not sliding.agrees(keys + 16 * cell, values)
    assert not sliding.agrees(keys, values - MIB // 64)


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", "no line of the log gives the size"),
        (LOG.replace("1536 cells,   1 layers", "1536 cells,   2 layers"), "1 layers were listed"),
    ],
)
def test_a_log_that_does_not_add_up_is_refused(log: str, said: str) -> None:
    with pytest.raises(llama_log.LogError, match=said):
        llama_log.read(log.splitlines())


def test_another_layout_of_the_structs_is_refused() -> None:
    """A field inserted upstream shifts every default after it."""
    defaults = {"n_ctx": 512, "n_batch": 2048}
    params = llama_library.ContextParams(n_ctx=512, n_batch=2048)
    llama_library.require_layout(params, defaults)
    shifted = llama_library.ContextParams()
    ctypes.memmove(ctypes.addressof(shifted) + 4, ctypes.addressof(params), 64)
    with pytest.raises(LlamaError, match=r"another ContextParams .* the default of n_ctx is 512"):
        llama_library.require_layout(shifted, defaults)


def test_without_the_wheel_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(util, "find_spec", lambda _name: None)
    llama_library.load.cache_clear()
    with pytest.raises(LlamaError, match="xllamacpp is not installed"):
        llama_library.load()


@pytest.mark.parametrize("name", ["llama.cpp", "llama.cpp.flash", "mlx", "mlx.rotating"])
def test_subjects_of_absent_wheels_are_not_installed(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = registry.load(name).package if _installed(name) else None

    def absent(asked: str) -> str:
        raise registry.metadata.PackageNotFoundError(asked)

    monkeypatch.setattr(registry.metadata, "version", absent)
    with pytest.raises(registry.NotInstalled) as raised:
        registry.load(name)
    assert package in {None, raised.value.package}


def _installed(name: str) -> bool:
    try:
        registry.load(name)
    except registry.NotInstalled:
        return False
    return True


@pytest.mark.parametrize("name", PUBLISHED)
def test_written_geometry_is_read_back(name: str, tmp_path: Path) -> None:
    """The estimator's GGUF reader, which shares no code with the writer."""
    path = tmp_path / "model.gguf"
    gguf_file.write_geometry(PUBLISHED[name], path)
    want = list(from_model(PUBLISHED[name]).layers)
    got = list(read_file(path).layers)
    if name == "mistral-7b-v0.1":  # converters write no window, and llama.cpp honours none
        assert all(layer.law.window is None for layer in got)
        assert [x.k_width for x in got] == [x.k_width for x in want]
        return
    if PUBLISHED[name].family == "phi3":
        assert [x.k_width for x in got] == [x.k_width for x in want]
        return
    assert got == want


def test_a_written_file_has_no_bytes_of_its_own(tmp_path: Path) -> None:
    """Gigabytes of weights that nobody reads take no disk: the file is sparse."""
    path = tmp_path / "model.gguf"
    gguf_file.write_geometry(PUBLISHED["phi3-mini-4k"], path)
    assert path.stat().st_size > 1000 * MIB
    assert path.stat().st_blocks * 512 < 4 * MIB


@pytest.mark.needs("transformers")
def test_the_tiny_gemma_is_gemma() -> None:
    """Logits are those of transformers' Gemma 3 with the same weights."""
    import transformers

    from harness.subjects.transformers.float64 import in_full_precision

    model = tiny("gemma3")
    config = transformers.Gemma3TextConfig(
        vocab_size=64,
        hidden_size=gemma3.HIDDEN,
        intermediate_size=gemma3.FEED_FORWARD,
        num_hidden_layers=model.n_layers,
        num_attention_heads=model.n_heads,
        num_key_value_heads=model.n_kv_heads,
        head_dim=model.head_dim,
        query_pre_attn_scalar=model.head_dim,
        sliding_window=model.window,
        layer_types=list(model.layer_types),
        pad_token_id=None,
    )
    theirs = transformers.Gemma3ForCausalLM._from_config(config, attn_implementation="eager")
    weights = gemma3.make(model, 64, 7)
    state = weights.checkpoint()
    theirs.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]})
    tokens = torch.randint(64, (2, 40), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), in_full_precision(torch.float64):
        want = theirs.double().eval()(tokens, use_cache=False).logits
    got = gemma3.dense(weights.to(torch.float64), tokens)
    # Theirs keeps its rotary frequencies in float32.
    assert not moved(got.float(), want.float()).any()
    assert 0.5 < float(got.std()) < 2  # attention and logits neither flat nor one-hot


def test_configs_for_mlx_hold_the_models_figures() -> None:
    config = mlx_models.config_for(PUBLISHED["gemma3-27b"])
    assert config["sliding_window"] == 1024
    assert config["sliding_window_pattern"] == 6
    nested = mlx_models.config_for(PUBLISHED["llama4-scout"])
    text = nested["text_config"]
    assert isinstance(text, dict)
    assert text["attention_chunk_size"] == 8192


def test_the_oracle_is_what_dense_attends_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dense` calls the oracle's attention, with masks from the laws of the layers."""
    from harness.reference import oracle

    seen: list[torch.Tensor] = []

    def spy(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        seen.append(mask)
        return attention(q, k, v, mask)

    monkeypatch.setattr(oracle, "attention", spy)
    model = tiny("gemma3")
    weights, tokens = gemma3.make(model, 64, 7), torch.zeros(1, 20, dtype=torch.int64)
    gemma3.dense(weights, tokens)
    assert [int(mask.sum(-1).max()) for mask in seen] == [8, 8, 8, 8, 8, 20]
