"""The kinds of layers, as transformers names them, and what a rule of their order is."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from harness.estimate.fields import Fields

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
LINEAR, CONV, INDEXED = "linear_attention", "conv", "indexed_attention"
HYBRID, HYBRID_SLIDING, NOTHING = "hybrid", "hybrid_sliding", "moe"

#: Spellings of older files.  A layer of experts alone, or of an MLP alone, caches nothing.
RENAMED = {
    "attention": FULL,
    "mamba": LINEAR,
    "recurrent": LINEAR,
    "mlp": NOTHING,
    "deepseek_sparse_attention": INDEXED,
    "qwen_sparse_attention": INDEXED,
    "minimax_m3_sparse": FULL,  # the keys of its indexer are not cached
}

Rule = Callable[[Fields, int], list[str]]


def every(
    period: int,
    key: str | None = None,
    *,
    full: str = FULL,
    local: str = SLIDING,
    first: bool = False,
    last: bool = False,
) -> Rule:
    """One layer of each period is of the kind `full`: its last layer, or with `first` its first.

    key: where the config gives the period.  last: the last layer is `full` whatever its index.
    """

    def rule(fields: Fields, n: int) -> list[str]:
        step = (fields.integer(key) if key else None) or period
        at = 0 if first else step - 1
        out = [full if i % step == at else local for i in range(n)]
        return [*out[:-1], full] if last else out

    return rule


def all_of(kind: str) -> Rule:
    """Every layer is of this kind."""
    return lambda _fields, n: [kind] * n


def flags(fields: Fields, key: str, n: int) -> list[int]:
    """A 0 or 1 for each of n layers.  Raises GeometryError for anything else."""
    return [fields.check(key, flag, 0, 1) for flag in fields.sequence(key, n)]


def indices(fields: Fields, key: str, n: int) -> list[int]:
    """A list of layers' indices."""
    value = fields.data[key]
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise fields.error(f"{fields.written(key)} must be a list of layers", value)
    return [fields.check(key, item, 0, n - 1) for item in value]
