"""The metadata of a GGUF file, without its tensors and vocabulary.

The `gguf` package reads the whole file and keeps an object per token, which takes ten seconds for
a vocabulary of 262,144.  This reader skips long arrays, long strings and tensors.  The beginning of
a file that is still being downloaded is therefore enough.  It refuses a file that claims more keys
or longer ones than any model has: a damaged count must not cost minutes or gigabytes.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFValueType
from gguf.gguf_reader import ReaderField

from harness.estimate import files
from harness.estimate.fields import MAX_LAYERS
from harness.estimate.geometry import GeometryError

_Parts = tuple[int, list[Any], list[int], list[GGUFValueType]]
#: Most keys of a file, bytes of a key (the format's own limit), items of all short arrays together,
#: and items of a vocabulary.
MOST_KEYS, MOST_KEY_BYTES, MOST_ITEMS, MOST_TOKENS = 1 << 12, (1 << 16) - 1, 1 << 16, 1 << 22

#: A longer string is a document, such as a whole tokenizer.json, and is skipped.
MOST_STRING_BYTES = 1 << 16

_HEAD = 4 + 8  # bytes before an array's items: their type, and how many there are


class _Metadata(GGUFReader):
    """A `GGUFReader` that skips whatever a geometry does not depend on."""

    _items = 0  # of all short arrays so far

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> _Parts:
        """Size of a field in the file, its parts, which of them hold data, and its types.

        An array longer than any list of layers gets no parts, a long string an empty one.
        """
        if raw_type == GGUFValueType.ARRAY:
            kind, n = struct.unpack_from(f"{self._order}IQ", self.data.data, orig_offs)
            if n > MAX_LAYERS:
                end = self._end_of_items(GGUFValueType(kind), n, orig_offs + _HEAD)
                return end - orig_offs, [], [], [GGUFValueType.ARRAY]
            self._items += n
            if self._items > MOST_ITEMS:
                raise ValueError(f"more than {MOST_ITEMS} items in short arrays")
        elif raw_type == GGUFValueType.STRING:
            (n,) = struct.unpack_from(f"{self._order}Q", self.data.data, orig_offs)
            if orig_offs + 8 + n > len(self.data):
                raise ValueError(f"a string of {n} bytes ends after the end of the file")
            if n > MOST_STRING_BYTES:
                return 8 + n, [self.data[:0], self.data[:0]], [1], [GGUFValueType.STRING]
        parts: _Parts = super()._get_field_parts(orig_offs, raw_type)
        return parts

    def _get(self, offset: int, dtype: Any, count: int = 1, override_order: Any = None) -> Any:
        """The numbers at an offset.  Raises IndexError if the file ends before they do."""
        if offset + np.dtype(dtype).itemsize * int(count) > len(self.data):
            raise IndexError(f"{count} numbers at {offset} end after the end of the file")
        return super()._get(offset, dtype, count, override_order)

    def _build_fields(self, offs: int, count: int) -> int:
        if count > MOST_KEYS:
            raise ValueError(f"{count} keys, where {MOST_KEYS} are the most")
        end: int = super()._build_fields(offs, count)
        return end

    def _get_str(self, offset: int) -> Any:
        """A key's length and bytes."""
        (n,) = struct.unpack_from(f"{self._order}Q", self.data.data, offset)
        if n > MOST_KEY_BYTES:
            raise ValueError(f"a string of {n} bytes where a key should be")
        return super()._get_str(offset)

    @property
    def _order(self) -> str:
        """The file's byte order, for `struct`."""
        return "<" if self.endianess.name == "LITTLE" else ">"

    def _end_of_items(self, kind: GGUFValueType, n: int, offset: int) -> int:
        """Offset of the end of an array's items.

        Raises ValueError if the array ends after the end of the file, is an array of arrays, or has
        more items than any vocabulary.
        """
        size = self.gguf_scalar_to_np.get(kind)
        if size is not None:
            end = offset + n * size().itemsize
        elif kind == GGUFValueType.STRING and n <= MOST_TOKENS:
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
    """Metadata by key; an empty list for an array as long as a vocabulary, "" for a long string.

    Raises GeometryError if the file is missing, is not a GGUF file or is damaged.
    """
    if not files.size(path):
        raise GeometryError(f"{path}: is empty; give the model's config.json or a .gguf file")
    try:
        return {key: field.contents() for key, field in _Metadata(path).fields.items()}
    except OSError as error:
        raise files.unreadable(path, error) from error
    except (IndexError, struct.error) as error:
        why = "it ends, or is damaged, in the middle of its metadata"
        raise GeometryError(f"{path}: not a readable GGUF file: {why}") from error
    except Exception as error:  # a damaged file can make the parser raise anything
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise GeometryError(f"{path}: not a readable GGUF file: {said}") from error
