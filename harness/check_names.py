"""The names of the checks, for what must not wait for torch; `harness.checks` holds the checks."""

from __future__ import annotations

NAMES = (
    "visibility",
    "values",
    "gradients",
    "cache_bytes",
    "peak_bytes",
    "reset",
    "rewind",
    "refusal",
    "purity",
    "export",
)
