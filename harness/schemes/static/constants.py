"""A static program's metadata as constant methods of the program, and a runner that uses them.

`static.metadata` says which flattened input and output is which cache.  A runner in another
language can only ask the program, so the program carries that metadata for each of its methods, as
constant methods.  `FlatGraph` is such a runner: it knows only these numbers, not the structure of
the inputs or the order of the layers.  So a wrong number gives wrong logits, not just a wrong
table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.schemes.static.layout import StaticLayout
from harness.schemes.static.metadata import metadata
from harness.schemes.static.model import Tables, Tensors

#: What a constant method may return.
Constant = Tensor | int | str

#: Flattened inputs -> flattened outputs.
Execute = Callable[[Sequence[Tensor]], Sequence[Tensor]]

_SPECS = ("kv_cache_specs", "mask_specs", "rope_specs")


def constant_methods(layout: StaticLayout, input_lens: Mapping[str, int]) -> dict[str, Constant]:
    """The constant methods of a program whose methods have these input lengths.

    For each method: "<method>_input_len", and for caches, masks and rotation tables their names
    ("<method>_mask_specs_names", joined by commas) and int64 rows ("<method>_mask_specs"): per
    cache (k input, k output, v input, v output, length), per mask (input, cache length), per table
    (cos input, sin input).
    """
    described = metadata(layout, input_lens)["methods"]
    out: dict[str, Constant] = {}
    for method, about in described.items():
        out[f"{method}_input_len"] = about["input_len"]
        for kind in _SPECS:
            rows = about[kind]
            out[f"{method}_{kind}"] = torch.tensor([row[1:] for row in rows], dtype=torch.int64)
            out[f"{method}_{kind}_names"] = ",".join(row[0] for row in rows)
    return out


@dataclass(frozen=True)
class MethodSpecs:
    """One method's metadata, read back from the program: rows of numbers by name."""

    input_len: int
    caches: dict[str, tuple[int, ...]]
    masks: dict[str, tuple[int, ...]]
    rope: dict[str, tuple[int, ...]]

    @classmethod
    def read(cls, method: str, ask: Callable[[str], Any]) -> MethodSpecs:
        """Read them by `ask`, which calls a constant method of the program by name."""
        tables = []
        for kind in _SPECS:
            names = ask(f"{method}_{kind}_names").split(",")
            rows = (tuple(row) for row in ask(f"{method}_{kind}").tolist())
            tables.append(dict(zip(names, rows, strict=True)))
        return cls(ask(f"{method}_input_len"), *tables)

    @property
    def n_inputs(self) -> int:
        """The number of flattened inputs, including the tokens at place 0."""
        return 1 + len(self.masks) + 2 * len(self.rope) + 2 * len(self.caches)


class FlatGraph:
    """Methods with flattened inputs as one `static.model.Graph`; the input length picks one."""

    def __init__(self, methods: Mapping[str, Execute], ask: Callable[[str], Any]) -> None:
        specs = {name: MethodSpecs.read(name, ask) for name in methods}
        self._by_length = {specs[name].input_len: (specs[name], methods[name]) for name in methods}

    def __call__(
        self, tokens: Tensor, masks: Tensors, rope: Tables, k_caches: Tensors, v_caches: Tensors
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """See `static.model.StaticDecoder`."""
        specs, execute = self._by_length[tokens.shape[1]]
        flat = [tokens] * specs.n_inputs
        for name, (place, _) in specs.masks.items():
            flat[place] = masks[name]
        for name, (cos, sin) in specs.rope.items():
            flat[cos], flat[sin] = rope[name]
        for name, (k_in, _, v_in, _, _) in specs.caches.items():
            flat[k_in], flat[v_in] = k_caches[name], v_caches[name]
        out = execute(flat)
        caches = specs.caches.items()
        return (
            out[0],
            {name: out[k_out] for name, (_, k_out, _, _, _) in caches},
            {name: out[v_out] for name, (_, _, _, v_out, _) in caches},
        )
