"""Benchmarks: medians of ratios between calls that take turns in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def _decode(repeats: int) -> dict[str, Any]:
    from harness.bench.decode import decode_step

    return decode_step(repeats)


def _probe(repeats: int) -> dict[str, Any]:
    from harness.bench.probe import probe_overhead

    return probe_overhead(repeats)


def _static(repeats: int) -> dict[str, Any]:
    from harness.bench.static_io import static_io

    return static_io(repeats)


def _routing(repeats: int, *, long: bool = False) -> dict[str, Any]:
    from harness.bench.routing import routing

    return routing(repeats, long=long)


#: Every benchmark by name; each takes the number of repeats, and those of LONG a flag `long`.
BENCHMARKS: dict[str, Callable[..., dict[str, Any]]] = {
    "decode": _decode,
    "probe": _probe,
    "static": _static,
    "routing": _routing,
}

#: Benchmarks that leave out by default what takes many minutes.
LONG = frozenset({"routing"})
