"""GGUF files with metadata alone, as converters write them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gguf import GGUFWriter


def write(path: Path, arch: str, keys: Mapping[str, Any]) -> Path:
    """Write a file with metadata only; the architecture is put before each key."""
    writer = GGUFWriter(path, arch)
    for key, value in keys.items():
        full = f"{arch}.{key}"
        if isinstance(value, bool):
            writer.add_bool(full, value)
        elif isinstance(value, int):
            writer.add_uint32(full, value)
        elif isinstance(value, str):
            writer.add_string(full, value)
        else:
            writer.add_array(full, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def keys(**more: Any) -> dict[str, Any]:
    """Metadata of a model of 12 layers; `...` drops a key, and two underscores stand for a dot."""
    base = {
        "block_count": 12,
        "attention.head_count_kv": 4,
        "attention.key_length": 256,
        "attention.value_length": 256,
        "attention.sliding_window": 512,
    }
    base |= {name.replace("__", "."): value for name, value in more.items()}
    return {name: value for name, value in base.items() if value is not ...}
