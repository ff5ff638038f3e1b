"""Turns what a user names (a file, a folder or a model) into a geometry."""

from __future__ import annotations

from pathlib import Path

from harness.estimate import files, model_id
from harness.estimate.geometry import Geometry, GeometryError


def resolve(target: str) -> Geometry:
    """The geometry of a .gguf file, a config.json, a folder that holds one, or a model's name.

    A target that exists as a path, or ends in .gguf or .json, is read as a file; any other is a
    model's name.  Raises GeometryError with a message of one line.
    """
    if not target.strip():
        raise GeometryError("MODEL must be a model's name, a config.json or a .gguf file, got ''")
    path = Path(target)
    if path.suffix.lower() == ".gguf":
        from harness.estimate import gguf_file

        return gguf_file.read_file(path)
    if path.suffix.lower() == ".json" or files.exists(target):
        from harness.estimate import hf_config  # a name needs none of the readers

        return hf_config.read_file(path)
    return model_id.read(target)
