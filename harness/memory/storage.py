"""Storage bytes of the tensors that an object holds, found by walking it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import BuiltinFunctionType, CellType, FunctionType, MethodType, ModuleType

from torch import Tensor

_LEAVES = (str, bytes, int, float, complex, bool, type(None), type, ModuleType)
_CODE = (FunctionType, BuiltinFunctionType)


def tensors_of(root: object) -> Iterator[Tensor]:
    """Every tensor that is reachable through attributes, slots, containers and closures."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        x = stack.pop()
        if isinstance(x, _LEAVES) or id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, Tensor):
            yield x
            continue
        stack += _children(x)


def _children(x: object) -> list[object]:
    if isinstance(x, Mapping):
        return list(x.values())
    if isinstance(x, MethodType):
        return [x.__self__]
    if isinstance(x, _CODE):
        cells = getattr(x, "__closure__", None) or ()
        return [value for cell in cells if (value := _content(cell)) is not None]
    found: list[object] = list(getattr(x, "__dict__", {}).values())
    slots = (s for cls in type(x).__mro__ for s in getattr(cls, "__slots__", ()))
    found += [getattr(x, s) for s in slots if isinstance(s, str) and hasattr(x, s)]
    if isinstance(x, Iterable) and isinstance(x, list | tuple | set | frozenset):
        found += list(x)
    if hasattr(x, "maxlen"):  # deque
        found += list(x)  # type: ignore[call-overload]
    return found


def _content(cell: CellType) -> object:
    """What a closure's cell holds; None for one whose variable was deleted."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the distinct storages under the tensors: a view counts its whole buffer."""
    sizes = {}
    for t in tensors:
        storage = t.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
    return sum(sizes.values())
