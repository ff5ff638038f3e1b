"""Cache lengths of a static graph, one per layer, from the options of an export.

The rules are those of the options ``sliding_window`` and ``sliding_window_pattern`` proposed for
ExecuTorch's static CoreML export (pytorch/executorch#19250 and #19251).  What those leave open is
refused with an error that names the option.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.cases.models import pattern_types
from harness.law import check_int


def resolve_cache_len(
    max_context_len: int, input_len: int, sliding_window: int | None = None
) -> int:
    """Cached positions of one layer: ``max_context_len - input_len``, capped at the window.

    While the chunk of `input_len` tokens is processed, its keys are not in the cache: they are
    appended to the cached ones.  A window of W keys, including the query's own, therefore needs
    W - 1 cached positions.  With W - 1 or more, any mask that is made from positions gives the
    exact window: it hides what is outside slot by slot, in the cache as in the chunk.  The cap is
    W, not W - 1, as in the export that these options come from; the spare slot allows a rewind by
    one position.

    Raises ValueError, naming the field, for a length < 1, an input_len that leaves no context, and
    a sliding_window < 1 or larger than max_context_len.
    """
    check_int("max_context_len", max_context_len, 1)
    check_int("input_len", input_len, 1)
    if input_len >= max_context_len:
        raise ValueError(
            f"input_len must be smaller than max_context_len={max_context_len}, got {input_len}"
        )
    available = max_context_len - input_len
    if sliding_window is None:
        return available
    check_int("sliding_window", sliding_window, 1)
    if sliding_window > max_context_len:
        raise ValueError(
            f"sliding_window must be at most max_context_len={max_context_len}, "
            f"got {sliding_window}"
        )
    return min(sliding_window, available)


def resolve_cache_lens(
    n_layers: int,
    max_context_len: int,
    input_len: int,
    sliding_window: int | None = None,
    sliding_window_pattern: int | None = None,
    layer_types: Sequence[str] | None = None,
) -> list[int]:
    """Cached positions of each layer, by `resolve_cache_len`.

    Without a window every layer is full.  With only a window every layer slides.  With a pattern P
    layer i is full iff ``(i + 1) % P == 0``.  `layer_types` (Hugging Face names) gives the kind of
    each layer instead.

    Raises ValueError, naming the field, for n_layers < 1, a pattern without a window, a pattern
    <= 1, pattern and layer_types together, layer_types of another length or with a name other
    than full_attention or sliding_attention, sliding layers without a window, and everything that
    `resolve_cache_len` refuses.
    """
    check_int("n_layers", n_layers, 1)
    if sliding_window_pattern is not None:
        check_int("sliding_window_pattern", sliding_window_pattern, 2)
        if sliding_window is None:
            raise ValueError(
                f"sliding_window_pattern={sliding_window_pattern} needs a sliding_window: "
                f"it says which layers do not slide"
            )
    full = resolve_cache_len(max_context_len, input_len)
    capped = resolve_cache_len(max_context_len, input_len, sliding_window)
    if layer_types is None:
        kinds = pattern_types(n_layers, sliding_window_pattern)
    else:
        kinds = _checked_types(layer_types, n_layers, sliding_window, sliding_window_pattern)
    return [full if kind == "full_attention" else capped for kind in kinds]


def _checked_types(
    layer_types: Sequence[str], n_layers: int, window: int | None, pattern: int | None
) -> tuple[str, ...]:
    if pattern is not None:
        raise ValueError(
            f"sliding_window_pattern={pattern} and layer_types say the same thing twice; give one"
        )
    if len(layer_types) != n_layers:
        raise ValueError(
            f"layer_types must name n_layers={n_layers} layers, got {len(layer_types)}"
        )
    allowed = ("full_attention", "sliding_attention")
    for i, kind in enumerate(layer_types):
        if kind not in allowed:
            raise ValueError(f"layer_types[{i}] must be one of {allowed}, got {kind!r}")
        if kind == "sliding_attention" and window is None:
            raise ValueError(f"layer_types[{i}] is sliding_attention, which needs sliding_window")
    return tuple(layer_types)
