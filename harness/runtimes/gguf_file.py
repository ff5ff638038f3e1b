"""Write models as GGUF files: true key and value shapes, with zeros or a tiny model's weights.

Uses the `gguf` package, and the keys that llama.cpp's own converters write.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cases.models import Model
from harness.runtimes.gguf_families import FAMILIES, FEED_FORWARD, VOCAB, Family, embedding, heads

if TYPE_CHECKING:
    from torch import Tensor

_CONTEXT = 131072
_ALIGNMENT = 32  # of tensors in the file: the format's default


def write_geometry(model: Model, path: Path) -> None:
    """Write a model of the table with weights of zero; the file is sparse.

    Raises KeyError for a family that `FAMILIES` lacks.
    """
    import gguf
    import numpy as np

    family = FAMILIES[model.family]
    writer = gguf.GGUFWriter(path, family.arch)
    _add_keys(writer, family, model, embedding(model), FEED_FORWARD)
    length = 0
    for name, shape in tensors(family, model):
        nbytes = int(np.prod(shape)) * 4
        writer.add_tensor_info(name, shape, np.dtype(np.float32), nbytes)
        length += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        start = -(-file.seek(0, 2) // _ALIGNMENT) * _ALIGNMENT
        file.truncate(start + length)


def write_weights(
    model: Model, path: Path, weights: Mapping[str, Tensor], width: int, hidden: int
) -> None:
    """Write a model of the table with these float32 weights, under their names in GGUF.

    width: of the embedding; hidden: of the feed-forward layer.
    """
    import gguf

    family = FAMILIES[model.family]
    writer = gguf.GGUFWriter(path, family.arch)
    _add_keys(writer, family, model, width, hidden)
    for name, tensor in weights.items():
        writer.add_tensor(name, tensor.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def tensors(family: Family, model: Model) -> list[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor of the file."""
    out: list[tuple[str, tuple[int, ...]]] = [
        ("token_embd.weight", (VOCAB, embedding(model))),
        ("output_norm.weight", (embedding(model),)),
        *family.globals(model),
    ]
    for i in range(model.n_layers):
        out += [(f"blk.{i}.{name}", shape) for name, shape in family.layer(model, i)]
    return out


def _add_keys(writer: Any, family: Family, model: Model, width: int, hidden: int) -> None:
    writer.add_block_count(model.n_layers)
    writer.add_context_length(_CONTEXT)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads(model))
    per_layer = [model.layer_kv_heads(i) for i in range(model.n_layers)]
    writer.add_head_count_kv(per_layer if len(set(per_layer)) > 1 else per_layer[0])
    if model.global_head_dim is None:
        writer.add_key_length(model.head_dim)
        writer.add_value_length(model.head_dim)
        writer.add_rope_dimension_count(model.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    # The cache depends on positions, not words: a vocabulary without words is enough.
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(VOCAB)
    family.keys(writer, model)
