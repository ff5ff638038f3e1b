"""The tables and the JSON that `harness kv` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.estimate.geometry import Geometry
from harness.estimate.profiles import Honours, Request
from harness.estimate.table import Row

if TYPE_CHECKING:
    from rich.console import Console

_GIB = 2**30


def show(
    console: Console, geometry: Geometry, request: Request, rows: Sequence[Row], *, layers: bool
) -> None:
    """Print the geometry and the figures; with `layers`, also the bytes of each kind of layer."""
    from rich.table import Table
    from rich.text import Text

    console.print(Text(headline(geometry)))
    for fact in geometry.facts:
        console.print(Text(f"  {fact.field}: {fact.value}  ({fact.sure}: {fact.source})"))
    console.print(Text(_asked(request)))
    console.print()
    table = Table(box=None, pad_edge=False)
    for name in ("runtime", "window"):
        table.add_column(name)
    for name in ("bytes", "GiB", "error"):
        table.add_column(name, justify="right")
    table.add_column("known by")
    for line in rows:
        known = line.evidence if line.nbytes is not None else line.note
        table.add_row(line.name, line.honours, *_numbers(line), known)
    console.print(table)
    if any(line.error is not None for line in rows):
        console.print(Text("error: relative to the bytes that llama.cpp allocates"))
    if any(line.honours == Honours.UNKNOWN for line in rows):
        console.print(Text("window unknown: nobody has checked; counted as if it were ignored"))
    if layers:
        console.print()
        _show_layers(console, geometry, rows)


def headline(geometry: Geometry) -> str:
    """The model in one line."""
    kinds = [layer.kind for layer in geometry.layers if layer.owns]
    counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    shared = len(geometry.layers) - len(kinds)
    rest = f", {shared} without a cache" if shared else ""
    return f"{geometry.name}: {geometry.family}, {len(geometry.layers)} layers ({counts}{rest})"


def _asked(request: Request) -> str:
    n = request.sequences
    kinds = dict.fromkeys((request.k_type, request.v_type))
    return (
        f"context {request.context:,}, {n} sequence{'s' * (n > 1)}, {'/'.join(kinds)}, "
        f"{request.phase.replace('_', ' ')}"
    )


def _numbers(line: Row) -> tuple[str, str, str]:
    if line.nbytes is None:
        return "", "", ""
    error = "" if line.error is None else f"{line.error:+.0%}"
    return f"{line.nbytes:,}", f"{line.nbytes / _GIB:.2f}", error


def _show_layers(console: Console, geometry: Geometry, rows: Sequence[Row]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("runtime", "layers", "kind", "kv heads", "head dim"):
        table.add_column(name)
    for name in ("bytes each", "bytes"):
        table.add_column(name, justify="right")
    for line in rows:
        for indices, nbytes in _sorts(geometry, line.layers):
            layer = geometry.layers[indices[0]]
            reach = f" {layer.reach}" if layer.reach else ""
            kind = f"{layer.kind}{reach}" if layer.owns else "reads another's"
            dims = (
                f"{layer.k_dim}" if layer.k_dim == layer.v_dim else f"{layer.k_dim}+{layer.v_dim}"
            )
            table.add_row(
                line.name,
                _ranges(indices),
                kind,
                str(layer.kv_heads),
                dims,
                f"{nbytes:,}",
                f"{nbytes * len(indices):,}",
            )
    console.print(table)


def _sorts(geometry: Geometry, sizes: Sequence[int]) -> list[tuple[list[int], int]]:
    """Groups of layers that are alike in geometry and bytes: their indices, and bytes per layer.

    Groups are ordered by their first layer.
    """
    found: dict[object, tuple[list[int], int]] = {}
    for i, nbytes in enumerate(sizes):
        layer = geometry.layers[i]
        key = (layer.law, layer.kv_heads, layer.k_dim, layer.v_dim, layer.owns, nbytes)
        found.setdefault(key, ([], nbytes))[0].append(i)
    return list(found.values())


def _ranges(indices: Sequence[int]) -> str:
    """The indices as runs, "0-4, 6-10"; after four runs, "…" and the number of indices in all."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    shown = [f"{a}-{b}" if a != b else str(a) for a, b in runs[:4]]
    return ", ".join(shown) + (f", … ({len(indices)})" if len(runs) > 4 else "")


def to_json(geometry: Geometry, request: Request, rows: Sequence[Row]) -> dict[str, Any]:
    """The geometry, the request and the figures as JSON values, with the bytes of each layer."""
    return {
        "model": geometry.name,
        "family": geometry.family,
        "facts": [
            {"field": f.field, "value": f.value, "source": f.source, "sure": str(f.sure)}
            for f in geometry.facts
        ],
        "layers": [
            {
                "kind": layer.kind,
                "window": layer.law.window,
                "chunk": layer.law.chunk,
                "kv_heads": layer.kv_heads,
                "k_dim": layer.k_dim,
                "v_dim": layer.v_dim,
                "reads": layer.reads,
            }
            for layer in geometry.layers
        ],
        "request": {
            "context": request.context,
            "sequences": request.sequences,
            "prompt": request.prompt_len,
            "phase": request.phase,
            "k_type": request.k_type,
            "v_type": request.v_type,
        },
        "runtimes": [
            {
                "name": line.name,
                "honours_window": line.honours,
                "known_by": line.evidence,
                "bytes": line.nbytes,
                "layer_bytes": list(line.layers),
                "error": line.error,
                "note": line.note,
            }
            for line in rows
        ],
    }
