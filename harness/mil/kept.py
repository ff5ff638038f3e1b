"""Converted models on disk, found by what they were made from.

A conversion takes seconds of CPU time, and parsing the saved model a small part of that.  The key
holds everything that the model depends on: the sources that build and convert it, versions, and
what the caller names.
"""

from __future__ import annotations

import io
import platform
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.export import sources
from harness.export.program_cache import Entry, ProgramCache
from harness.mil.conversion import hushed, input_names

#: A model is known by its values, which are in the key, and not by the tables of cases.
_BY_VALUE = frozenset({"harness.cases.case", "harness.cases.schedules"})
_PACKAGE = "model.mlpackage"


@dataclass(frozen=True)
class Kept:
    """program: the MIL program, after all passes.  inputs: names, in the order of the arguments."""

    program: Any
    inputs: tuple[str, ...]


def kept(
    name: str, sources_of: Sequence[str], what: Mapping[str, object], make: Callable[[], Any]
) -> Kept:
    """The program of the Core ML model that `make` converts, from the cache if it is there.

    name: the start of the file's name.  sources_of: modules whose code builds the model.  what:
    everything else that determines it, as values that JSON can hold.
    """
    from harness.mil.interpreter import load

    key = {
        "what": dict(what),
        "sources": sources.digest(__name__, *sources_of, apart=_BY_VALUE),
        "versions": {package: metadata.version(package) for package in ("coremltools", "torch")},
        "machine": platform.machine(),  # random weights may differ in their last bits
    }
    entry = ProgramCache().get(f"mil-{name}", key, lambda: _entry(make()))
    with tempfile.TemporaryDirectory() as folder, hushed():
        with zipfile.ZipFile(io.BytesIO(entry.payload)) as packed:
            packed.extractall(folder)
        return Kept(load(str(Path(folder) / _PACKAGE)), tuple(entry.facts["inputs"]))


def _entry(model: Any) -> Entry:
    """A converted model as the cache holds it."""
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, hushed():
        root = Path(folder)
        model.save(str(root / _PACKAGE))
        with zipfile.ZipFile(out, "w") as packed:
            for path in sorted(root.rglob("*")):
                if path.is_file():
                    packed.write(path, path.relative_to(root).as_posix())
    return Entry(out.getvalue(), {"inputs": input_names(model)})
