"""What several checks share."""

from __future__ import annotations

from dataclasses import replace

from harness.cases.case import Case
from harness.cases.models import Model
from harness.contract import CacheShape, Unsupported
from harness.law import Layer
from harness.reference.cache_decoder import cache_shape
from harness.reference.inputs import OP_HEAD_DIM


def require_plain(case: Case) -> None:
    """Raise Unsupported for a schedule with a reset or rewind, which has its own check."""
    if not case.schedule.plain:
        raise Unsupported("a schedule with reset or rewind belongs to the check of that name")


def distinct_layers(model: Model) -> list[tuple[int, Layer]]:
    """(index, law) of one cached layer per law and shape."""
    seen: dict[tuple[Layer, int, int], int] = {}
    for i in model.cached_layers:
        key = (model.layers[i], model.layer_kv_heads(i), model.layer_head_dim(i))
        seen.setdefault(key, i)
    return [(i, model.layers[i]) for i in seen.values()]


def op_shape(case: Case, layer: int) -> CacheShape:
    """The cache shape of a layer, with the head_dim of single-layer inputs."""
    return replace(cache_shape(case, layer), head_dim=OP_HEAD_DIM)
