"""Benchmarks: medians of ratios between calls that take turns in one process."""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Every benchmark by name: the module, imported when it is asked for, and its function.
BENCHMARKS = {
    "decode": ("decode", "decode_step"),
    "probe": ("probe", "probe_overhead"),
    "static": ("static_io", "static_io"),
    "routing": ("routing", "routing"),
}

#: Benchmarks that leave out by default what takes many minutes; they take a flag `long`.
LONG = frozenset({"routing"})


def run(name: str, repeats: int, **options: Any) -> dict[str, Any]:
    """The figures of one benchmark.  options: `long=True` for those of LONG."""
    module, function = BENCHMARKS[name]
    figures: dict[str, Any] = getattr(import_module(f"harness.bench.{module}"), function)(
        repeats, **options
    )
    return figures
