"""What a runner must know about a static program: which input and output is which cache.

Every number is read from the flattened example inputs and outputs, never counted by layer: names
sort as text ("l10" before "l2"), and layers differ in cache length, head_dim and number of caches.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from harness.law import check_int
from harness.reference.decoder import rope_tables
from harness.schemes.static.layout import StaticLayout
from harness.schemes.static.masks import CacheSlots

ExampleInputs = tuple[
    Tensor,
    dict[str, Tensor],
    dict[str, tuple[Tensor, Tensor]],
    dict[str, Tensor],
    dict[str, Tensor],
]


class CacheSpec(NamedTuple):
    """Where one cache enters and leaves a flattened program, and how long it is."""

    name: str
    k_input: int
    k_output: int
    v_input: int
    v_output: int
    cache_len: int


class MaskSpec(NamedTuple):
    """Where one mask enters a flattened program, and the length of the caches it belongs to."""

    name: str
    input: int
    cache_len: int


def example_inputs(layout: StaticLayout, input_len: int) -> ExampleInputs:
    """Inputs of `StaticDecoder` for a first chunk of `input_len` tokens over empty caches."""
    check_int("input_len", input_len, 1)
    positions = torch.arange(input_len)
    masks = {
        name: torch.where(
            CacheSlots(law, cache_len, layout.style).visible(positions), 0.0, layout.mask_value
        ).to(layout.dtype)[None]
        for name, (cache_len, law) in layout.masks.items()
    }
    rope = {
        name: rope_tables(positions, head_dim, layout.dtype)
        for name, head_dim in layout.rope_dims.items()
    }
    tokens = torch.zeros(layout.batch, input_len, dtype=torch.int64)
    return tokens, masks, rope, layout.empty_caches("k"), layout.empty_caches("v")


def cache_specs(layout: StaticLayout, inputs: ExampleInputs) -> list[CacheSpec]:
    """One spec per cache, layer by layer, with the length that its example tensor has.

    Raises ValueError for a cache whose key and value tensors differ in length.
    """
    _, _, _, k_in, v_in = _numbered(inputs)
    _, k_out, v_out = _numbered((0, dict.fromkeys(inputs[3]), dict.fromkeys(inputs[4])))
    return [
        CacheSpec(n, k_in[n], k_out[n], v_in[n], v_out[n], _length(layout, inputs, n))
        for i in layout.model.cached_layers
        for n in layout.cache_names(i)
    ]


def mask_specs(inputs: ExampleInputs) -> list[MaskSpec]:
    """One spec per mask, with the cache length that its example tensor has."""
    input_len = inputs[0].shape[1]
    _, numbers, _, _, _ = _numbered(inputs)
    return [
        MaskSpec(name, numbers[name], mask.shape[-1] - input_len)
        for name, mask in inputs[1].items()
    ]


def metadata(layout: StaticLayout, input_lens: Mapping[str, int]) -> dict[str, Any]:
    """Metadata of a program with one method per entry of `input_lens`, by method name.

    {"forward": 64} describes a single method, {"prefill": 64, "decode": 1} a multifunction
    program whose methods share their caches: the caches have the same shape in every method, and
    only tokens, masks and rotation tables differ.  The result holds plain numbers and lists, ready
    for constant methods or JSON.
    """
    if not input_lens:
        raise ValueError("input_lens must name at least one method, got none")
    methods: dict[str, Any] = {}
    for method, input_len in input_lens.items():
        inputs = example_inputs(layout, input_len)
        _, _, rope, _, _ = _numbered(inputs)
        methods[method] = {
            "input_len": input_len,
            "kv_cache_specs": [list(spec) for spec in cache_specs(layout, inputs)],
            "mask_specs": [list(spec) for spec in mask_specs(inputs)],
            "rope_specs": [[name, *numbers] for name, numbers in rope.items()],
        }
    return {
        "style": layout.style,
        "n_layers": layout.model.n_layers,
        "kv_sources": list(layout.model.kv_sources),
        "cache_bytes": [layout.layer_bytes(i) for i in range(layout.model.n_layers)],
        "methods": methods,
    }


def _numbered(tree: Any) -> Any:
    """The same tree with each leaf replaced by its place in the flattened order."""
    leaves, spec = pytree.tree_flatten(tree, is_leaf=lambda x: x is None)
    return pytree.tree_unflatten(list(range(len(leaves))), spec)


def _length(layout: StaticLayout, inputs: ExampleInputs, name: str) -> int:
    k_len = inputs[3][name].shape[layout.seq_dim("k")]
    v_len = inputs[4][name].shape[layout.seq_dim("v")]
    if k_len != v_len:
        raise ValueError(f"cache {name} has {k_len} keys and {v_len} values")
    return k_len
