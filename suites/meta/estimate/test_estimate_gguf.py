"""Geometry from GGUF metadata: real files, written and read with the `gguf` package."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFEndian, GGUFWriter
from gguf_files import keys, write

from harness.cases.models import PUBLISHED
from harness.estimate import gguf_file, model_id
from harness.estimate.geometry import Fact, Geometry, GeometryError, Sure, from_model
from harness.estimate.gguf_metadata import metadata
from harness.estimate.hf_write import to_config
from harness.law import Layer


def read(tmp_path: Path, arch: str, /, **more: Any) -> Geometry:
    return gguf_file.read_file(write(tmp_path / "a.gguf", arch, keys(**more)))


def fact(geometry: Geometry, field: str) -> Fact:
    return next(fact for fact in geometry.facts if fact.field == field)


def windows(geometry: Geometry) -> list[int | None]:
    return [layer.law.window for layer in geometry.layers]


def every(period: int, window: int = 512) -> list[int | None]:
    return [None if (i + 1) % period == 0 else window for i in range(12)]


@pytest.mark.parametrize("row", [m.row for m in model_id.RELEASED])
def test_files_of_every_model(row: str, tmp_path: Path) -> None:
    """Files as converters write them give the same layers, except for windows they leave out."""
    model = PUBLISHED[row]
    arch = {"mistral": "llama", "llama3": "llama"}.get(model.family, model.family)
    local = {"key_length": model.head_dim, "value_length": model.head_dim}
    full = model.global_head_dim or model.head_dim
    wanted: dict[str, Any] = {"block_count": model.n_layers}
    wanted |= {f"attention.{k}": full for k in local}
    heads = [model.layer_kv_heads(i) for i in range(model.n_layers)]
    wanted["attention.head_count_kv"] = heads if len(set(heads)) > 1 else heads[0]
    if model.global_head_dim:
        wanted |= {f"attention.{k}_swa": v for k, v in local.items()}
    if model.window and arch not in {"llama", "phi3"}:
        wanted["attention.sliding_window"] = model.window
    if arch in {"gemma3n", "gemma4"}:
        flags = [kind == "sliding_attention" for kind in model.layer_types]
        wanted["attention.sliding_window_pattern"] = flags
        wanted["attention.shared_kv_layers"] = model.n_shared
    geometry = gguf_file.read_file(write(tmp_path / "a.gguf", arch, wanted))
    expected = from_model(model)
    if arch in {"llama", "phi3"}:
        assert windows(geometry) == [None] * model.n_layers
    else:
        assert geometry.layers == expected.layers
    assert [x.k_dim for x in geometry.layers] == [x.k_dim for x in expected.layers]


@pytest.mark.parametrize(
    ("arch", "more", "expected"),
    [
        # Converters write no pattern: llama.cpp's own constant of the architecture.
        ("gemma2", {}, every(2)),
        ("gemma2", {"attention__sliding_window": ...}, every(2, 4096)),
        ("gemma3", {}, every(6)),
        ("gpt-oss", {}, every(2)),
        ("cohere2", {}, every(4)),
        ("gemma3n", {}, every(5)),
        ("gemma3", {"attention__sliding_window_pattern": 3}, every(3)),
        ("gemma3", {"attention__sliding_window_pattern": [True] * 11 + [False]}, every(12)),
        ("gemma4", {"attention__sliding_window_pattern": [False, True] * 6}, [None, 512] * 6),
        ("gemma3", {"attention__sliding_window_pattern": 1}, [None] * 12),
        ("gemma3", {"attention__sliding_window_pattern": 0}, [512] * 12),
        ("gemma3", {"attention__sliding_window": 0}, [None] * 12),
        ("llama", {"attention__sliding_window": ...}, [None] * 12),
        ("phi3", {}, [512] * 12),
    ],
)
def test_patterns(
    arch: str, more: dict[str, Any], expected: list[int | None], tmp_path: Path
) -> None:
    assert windows(read(tmp_path, arch, **more)) == expected


def test_constants_of_llama_cpp_are_marked(tmp_path: Path) -> None:
    geometry = read(tmp_path, "llama4", attention__sliding_window=...)
    assert [x.law for x in geometry.layers] == [*[Layer(chunk=8192)] * 3, Layer()] * 3
    assert fact(geometry, "chunk").sure is Sure.FAMILY
    assert read(tmp_path, "llama4").layers == geometry.layers, "whatever the key says"
    off = read(tmp_path, "llama4", attention__sliding_window=0)
    assert {x.law for x in off.layers} == {Layer()}
    shared = read(tmp_path, "gemma3n", block_count=30)
    assert sum(layer.owns for layer in shared.layers) == 20
    assert fact(shared, "layers without a cache").sure is Sure.FAMILY
    stated = read(tmp_path, "gemma3n", block_count=30, attention__shared_kv_layers=12)
    assert sum(layer.owns for layer in stated.layers) == 18
    assert fact(stated, "window").source == "gemma3n.attention.sliding_window"


def test_widths(tmp_path: Path) -> None:
    """Sliding layers may have their own; if left out, they follow from the embedding's length."""
    own = read(tmp_path, "gemma3", attention__key_length_swa=64, attention__value_length_swa=32)
    assert [(x.k_dim, x.v_dim) for x in own.layers[4:6]] == [(64, 32), (256, 256)]
    left = {"attention__key_length": ..., "attention__value_length": ...}
    derived = read(
        tmp_path,
        "llama",
        **left,
        embedding_length=4096,
        attention__head_count=32,
        attention__head_count_kv=...,
        attention__sliding_window=...,
    )
    assert {(x.kv_heads, x.k_dim, x.v_dim) for x in derived.layers} == {(32, 128, 128)}


@pytest.mark.parametrize(
    ("arch", "more", "message"),
    [
        ("gemma3", {"block_count": ...}, "gemma3.block_count is missing"),
        ("gemma3", {"block_count": 1 << 30}, "gemma3.block_count must be an integer in 1…4096"),
        ("gemma3", {"attention__head_count_kv": ...}, "attention.head_count_kv is missing; read:"),
        ("gemma3", {"attention__head_count_kv": [4] * 11}, "one entry per layer, 12, got 11"),
        ("gemma3", {"attention__head_count_kv": [0] * 12}, "must be an integer in 1…"),
        ("gemma3", {"attention__sliding_window": ...}, "attention.sliding_window is missing"),
        (
            "gemma3",
            {"attention__sliding_window": True},
            "must be an integer in 0…1048576, got True",
        ),
        ("gemma3", {"attention__sliding_window": "x"}, "must be an integer in 0…1048576, got 'x'"),
        ("gemma4", {}, "attention.sliding_window_pattern is missing"),
        (
            "gemma4",
            {"attention__sliding_window": ...},
            "gemma4.attention.sliding_window is missing",
        ),
        ("gemma4", {"attention__sliding_window_pattern": [2] * 12}, "must hold bools, got 2"),
        ("gemma3", {"attention__key_length": ...}, "embedding_length is missing"),
        ("deepseek2", {"attention__kv_lora_rank": 512}, "only caches of keys and values"),
        ("mamba", {"ssm__state_size": 16}, "only caches of keys and values"),
        ("gemma3n", {"attention__shared_kv_layers": 12}, "must be an integer in 0…11"),
    ],
)
def test_missing_and_wrong_keys(
    arch: str, more: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(GeometryError) as caught:
        read(tmp_path, arch, **more)
    assert message in str(caught.value)


def test_damaged_files_are_refused_in_one_line(tmp_path: Path) -> None:
    """A file that is cut, empty or not GGUF is refused, or gives the same layers.

    One with a wrong byte may give other layers, but raises nothing except GeometryError.
    """
    whole = write(tmp_path / "a.gguf", "gemma3", keys()).read_bytes()
    good = gguf_file.read_file(tmp_path / "a.gguf").layers
    draw, refused = random.Random(7), 0
    damaged = [whole[:n] for n in (0, 3, 4, 20, 100, len(whole) // 2)]
    damaged += [b"{}", b"GGUF" * 50]
    for _ in range(60):
        at = draw.randrange(len(whole))
        damaged.append(whole[:at] + bytes([draw.randrange(256)]) + whole[at + 1 :])
    for data in damaged:
        path = tmp_path / "b.gguf"
        path.write_bytes(data)
        try:
            layers = gguf_file.read_file(path).layers
        except GeometryError as error:
            refused += 1
            message = str(error)
        else:
            message = str(path)
            assert layers == good or data not in damaged[:8]
        assert message.startswith(str(path))
    assert refused >= 8
    with pytest.raises(GeometryError, match="cannot be read: No such file"):
        gguf_file.read_file(tmp_path / "none.gguf")


@pytest.mark.parametrize("endian", list(GGUFEndian))
def test_vocabularies_are_stepped_over(endian: GGUFEndian, tmp_path: Path) -> None:
    """In either byte order, keys after a vocabulary are still read, and tensors are not."""
    n = 5000
    path = tmp_path / "a.gguf"
    writer = GGUFWriter(path, "gemma3", endianess=endian)
    writer.add_array("tokenizer.ggml.tokens", [f"token {i}" for i in range(n)])
    writer.add_array("tokenizer.ggml.scores", [float(i) for i in range(n)])
    writer.add_array("tokenizer.ggml.short", ["a", "b"])
    for key, value in keys().items():
        writer.add_uint32(f"gemma3.{key}", value)
    writer.add_tensor("output.weight", np.zeros((64, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read_back = metadata(path)
    assert read_back["tokenizer.ggml.tokens"] == []
    assert read_back["tokenizer.ggml.short"] == ["a", "b"]
    assert windows(gguf_file.read_file(path)) == every(6)
    # A download that has got as far as the metadata, and one that has not.
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - 64 * 64 * 4])
    assert windows(gguf_file.read_file(path)) == every(6)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(GeometryError, match="not a readable GGUF file"):
        gguf_file.read_file(path)


def test_both_readers_agree() -> None:
    """A config.json and GGUF metadata of the same model give the same geometry."""
    geometry = model_id.read("gemma3-27b")
    config = to_config(geometry)
    metadata = {
        "general.architecture": "gemma3",
        "gemma3.block_count": config["num_hidden_layers"],
        "gemma3.attention.head_count_kv": config["num_key_value_heads"],
        "gemma3.attention.key_length": config["head_dim"],
        "gemma3.attention.value_length": config["head_dim"],
        "gemma3.attention.sliding_window": config["sliding_window"],
    }
    assert gguf_file.read(metadata).layers == geometry.layers
