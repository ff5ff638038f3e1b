"""From what a user names (a file, a folder, a model) to a geometry."""

from __future__ import annotations

from pathlib import Path

from harness.estimate import hf_config, model_id
from harness.estimate.geometry import Geometry, GeometryError


def resolve(target: str) -> Geometry:
    """The geometry of a .gguf file, a config.json, a folder that holds one, or a model's name.

    A path that exists is read; so is one that only a file can have (a suffix .gguf or .json).
    Raises GeometryError with one line.
    """
    if not target.strip():
        raise GeometryError("MODEL must be a model's name, a config.json or a .gguf file, got ''")
    path = Path(target)
    if path.suffix.lower() == ".gguf":
        from harness.estimate import gguf_file

        return gguf_file.read_file(path)
    if path.suffix.lower() == ".json" or path.exists():
        return hf_config.read_file(path)
    return model_id.read(target)
