"""The tables and the JSON that `harness kv` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.estimate.geometry import Geometry
from harness.estimate.profiles import Honours, Request
from harness.estimate.table import Row
from harness.results.text import escaped

if TYPE_CHECKING:
    from rich.console import Console

_GIB = 2**30


def show(
    console: Console, geometry: Geometry, request: Request, rows: Sequence[Row], *, layers: bool
) -> None:
    """Print the geometry and the figures; with `layers`, also the bytes of each kind of layer."""
    from rich.table import Table
    from rich.text import Text

    def say(text: str) -> None:
        console.print(Text(escaped(text)))

    say(headline(geometry))
    for fact in geometry.facts:
        say(f"  {fact.field}: {fact.value}  ({fact.sure}: {fact.source})")
    say(_asked(request))
    console.print()
    # Only estimators err; without one the column would stand empty.
    erring = any(line.error is not None for line in rows)
    table = Table(box=None, pad_edge=False)
    for name in ("runtime", "window"):
        table.add_column(name)
    for name in ("bytes", "GiB", *(["error"] if erring else [])):
        table.add_column(name, justify="right")
    table.add_column("known by")
    for line in rows:
        known = line.evidence if line.nbytes is not None else line.note
        cells = (line.name, line.honours, *_numbers(line, erring=erring), known)
        table.add_row(*(Text(escaped(cell)) for cell in cells))
    console.print(table)
    if erring:
        say("error: relative to the bytes that llama.cpp allocates")
    for caption in _windows(rows):
        say(caption)
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


def _windows(rows: Sequence[Row]) -> list[str]:
    """What the words of the column "window" say, of those that stand in it."""
    said = {line.honours for line in rows}
    captions = []
    if said & {Honours.YES, Honours.NO}:
        captions.append("window: whether the keys that have left the model's windows are dropped")
    if Honours.NOTHING in said:
        captions.append("window -: the model has none, every layer keeps every key")
    if Honours.UNKNOWN in said:
        captions.append("window unknown: nobody has checked; counted as if it were ignored")
    return captions


def _numbers(line: Row, *, erring: bool) -> list[str]:
    if line.nbytes is None:
        return [""] * (3 if erring else 2)
    error = "" if line.error is None else f"{line.error:+.0%}"
    return [f"{line.nbytes:,}", f"{line.nbytes / _GIB:.2f}", *([error] if erring else [])]


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
                "latent": layer.latent,
                "states": [
                    {
                        "kind": state.kind,
                        "numbers": state.numbers,
                        "per_position": state.per_position,
                        "stored": state.stored,
                    }
                    for state in layer.states
                ],
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
