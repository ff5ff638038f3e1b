"""Read the sizes of KV caches from llama.cpp's log."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_MIB = 1 << 20
#: llama.cpp prints sizes in MiB with two decimals.
_PRINTED = 0.01 * _MIB

_SIZE = re.compile(
    r"llama_kv_cache: size = +(?P<size>[\d.]+) MiB \( *(?P<cells>\d+) cells, +(?P<layers>\d+) "
    r"layers, +(?P<sequences>\d+)/(?P<streams>\d+) seqs\), K \((?P<k_type>\w+)\): +(?P<k>[\d.]+) "
    r"MiB, V \((?P<v_type>\w+)\): +(?P<v>[\d.]+) MiB"
)
_LAYER = re.compile(r"llama_kv_cache: layer +(?P<layer>\d+): (?P<what>.*)")
_BUFFER = re.compile(r"llama_kv_cache: .* KV buffer size = +(?P<mib>[\d.]+) MiB")


class LogError(Exception):
    """The log gives no size, or contradicts itself; the message says which."""


@dataclass(frozen=True)
class LoggedCache:
    """One buffer of cells, as llama.cpp printed it.

    cells: in each stream.  layers: indices of the layers whose keys and values it holds.
    buffer_mib: MiB allocated for it; 0 where the model was loaded without allocating.
    """

    cells: int
    streams: int
    layers: tuple[int, ...]
    k_type: str
    v_type: str
    k_mib: float
    v_mib: float
    buffer_mib: float

    def agrees(self, k_bytes: int, v_bytes: int) -> bool:
        """True if these byte counts are what was printed, to the two decimals of a MiB."""
        return all(
            abs(printed * _MIB - exact) <= _PRINTED / 2 + 1
            for printed, exact in ((self.k_mib, k_bytes), (self.v_mib, v_bytes))
        )


def read(lines: Iterable[str]) -> list[LoggedCache]:
    """The caches of one context, in the order in which they were made.

    Raises LogError if there is none, or if one has another number of layers than were listed.
    """
    found: list[LoggedCache] = []
    layers: list[int] = []
    buffer = 0.0
    for line in lines:
        if layer := _LAYER.search(line):
            if layer["what"].startswith("dev"):
                layers.append(int(layer["layer"]))
        elif held := _BUFFER.search(line):
            buffer += float(held["mib"])
        elif size := _SIZE.search(line):
            if int(size["layers"]) != len(layers):
                raise LogError(f"{len(layers)} layers were listed before: {line.strip()}")
            found.append(_cache(size, tuple(layers), buffer))
            layers, buffer = [], 0.0
    if not found:
        raise LogError("no line of the log gives the size of a KV cache")
    return found


def _cache(size: re.Match[str], layers: tuple[int, ...], buffer: float) -> LoggedCache:
    return LoggedCache(
        cells=int(size["cells"]),
        streams=int(size["streams"]),
        layers=layers,
        k_type=size["k_type"],
        v_type=size["v_type"],
        k_mib=float(size["k"]),
        v_mib=float(size["v"]),
        buffer_mib=buffer,
    )
