"""The metadata of a GGUF file, without its tensors and vocabulary.

The `gguf` package reads the whole file and keeps an object per token, which takes ten seconds for
a vocabulary of 262,144.  This reader skips long arrays and tensors.  The beginning of a file that
is still being downloaded is therefore enough.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from gguf import GGUFReader, GGUFValueType
from gguf.gguf_reader import ReaderField

from harness.estimate.fields import MAX_LAYERS
from harness.estimate.geometry import GeometryError

_Parts = tuple[int, list[Any], list[int], list[GGUFValueType]]
_HEAD = 4 + 8  # bytes before an array's items: their type, and how many there are


class _Metadata(GGUFReader):
    """A `GGUFReader` that skips whatever a geometry does not depend on."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> _Parts:
        """Size of a field in the file, its parts, which of them hold data, and its types.

        An array longer than any list of layers gets no parts.
        """
        if raw_type == GGUFValueType.ARRAY:
            kind, n = struct.unpack_from(f"{self._order}IQ", self.data.data, orig_offs)
            if n > MAX_LAYERS:
                end = self._end_of_items(GGUFValueType(kind), n, orig_offs + _HEAD)
                return end - orig_offs, [], [], [GGUFValueType.ARRAY]
        parts: _Parts = super()._get_field_parts(orig_offs, raw_type)
        return parts

    @property
    def _order(self) -> str:
        """The file's byte order, for `struct`."""
        return "<" if self.endianess.name == "LITTLE" else ">"

    def _end_of_items(self, kind: GGUFValueType, n: int, offset: int) -> int:
        """Offset of the end of an array's items.

        Raises ValueError if the array ends after the end of the file, or is an array of arrays.
        """
        size = self.gguf_scalar_to_np.get(kind)
        if size is not None:
            end = offset + n * size().itemsize
        elif kind == GGUFValueType.STRING:
            length, held, end = struct.Struct(f"{self._order}Q"), self.data.data, offset
            for _ in range(n):
                end += 8 + length.unpack_from(held, end)[0]
        else:
            raise ValueError(f"array of {n} items of type {kind.name}")
        if end > len(self.data):
            raise ValueError(f"array of {n} items ends after the end of the file")
        return end

    def _build_tensor_info(self, offs: int, count: int) -> tuple[int, list[ReaderField]]:  # noqa: ARG002
        """Read no tensors: their types may be newer than the package, or their data not there."""
        return offs, []


def metadata(path: Path) -> dict[str, Any]:
    """Metadata by key; an empty list for an array as long as a vocabulary.

    Raises GeometryError if the file is missing, is not a GGUF file or is damaged.
    """
    if not path.is_file():
        raise GeometryError(f"{path}: no such file")
    try:
        return {key: field.contents() for key, field in _Metadata(path).fields.items()}
    except OSError as error:
        raise GeometryError(f"{path}: cannot be read: {error.strerror}") from error
    except Exception as error:  # a damaged file can make the parser raise anything
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise GeometryError(f"{path}: not a readable GGUF file: {said}") from error
