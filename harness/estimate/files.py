"""Opens what a user names: regular files alone, and of a config no more than a config can hold."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

from harness.estimate.geometry import GeometryError

#: The most bytes of a config.json.  The largest that are released, with a label for each of
#: thousands of classes, have less than one MiB.
MOST_BYTES = 16 << 20

#: How the names of weights end.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".npz", ".onnx", ".msgpack")

_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def exists(target: str) -> bool:
    """True if something is there under that path, even if it may not be looked at."""
    try:
        Path(target).stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


def size(path: Path) -> int:
    """Bytes of a regular file.

    Raises GeometryError for anything else: a pipe could keep us waiting, a device has no end.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise unreadable(path, error) from error
    except ValueError as error:
        raise GeometryError(f"{path}: cannot be read: {error}") from error
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "special file")
        raise GeometryError(f"{path}: must be a config.json or a .gguf file, got a {kind}")
    return found.st_size


def read_config(path: Path) -> bytes:
    """All bytes of a config.json.

    Raises GeometryError, before it reads, for weights and for a file of more than `MOST_BYTES`.
    """
    if path.name.lower().endswith(_WEIGHTS):
        size(path)
        raise GeometryError(
            f"{path}: holds weights, which are not read; give the model's config.json, "
            "which lies beside them"
        )
    large = size(path) > MOST_BYTES
    data = b"" if large else _read(path)
    if large or len(data) > MOST_BYTES:
        raise GeometryError(
            f"{path}: has more than {MOST_BYTES >> 20} MiB, the most of a config.json; "
            "give the model's config.json or a .gguf file"
        )
    if not data.strip():
        raise GeometryError(f"{path}: is empty; give the model's config.json or a .gguf file")
    return data


def _read(path: Path) -> bytes:
    """The file, and one byte more than is allowed of one that grows or has no size."""
    try:
        with path.open("rb") as file:
            return file.read(MOST_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> GeometryError:
    """The error for a path that the system does not let us read."""
    return GeometryError(f"{path}: cannot be read: {error.strerror}")
