"""Benchmarks: medians of ratios between calls that take turns in one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any


def _run(name: str, repeats: int, **options: bool) -> dict[str, Any]:
    """The figures of a benchmark; its module, and with it torch, is only imported here."""
    figures: dict[str, Any] = import_module(f"{__name__}.{name}").run(repeats, **options)
    return figures


#: Every benchmark, by the name of its module in this package, whose function `run` it calls.  All
#: take the number of repeats; those in LONG also take a flag `long`.
BENCHMARKS: dict[str, Callable[..., dict[str, Any]]] = {
    name: partial(_run, name) for name in ("decode", "probe", "static", "routing")
}

#: Benchmarks that by default leave out whatever takes many minutes.
LONG = frozenset({"routing"})
