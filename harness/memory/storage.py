"""Storage bytes of the tensors that an object holds, found by walking it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import (
    BuiltinFunctionType,
    CellType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

_LEAVES = (str, bytes, int, float, complex, bool, type(None), type, ModuleType)


def tensors_of(root: object) -> Iterator[Tensor]:
    """Every tensor that is reachable through attributes, slots, containers and functions.

    From a function, these are what it closes over, its defaults and its attributes; globals are
    not followed.  Fake tensors, which an exported graph keeps as examples, hold no memory.
    """
    seen: dict[int, object] = {}  # kept alive, or a new object might get the id of one that is gone
    stack = [root]
    while stack:
        x = stack.pop()
        if isinstance(x, _LEAVES) or id(x) in seen:
            continue
        seen[id(x)] = x
        if isinstance(x, Tensor):
            if not isinstance(x, FakeTensor):
                yield x
            continue
        stack += _children(x)


def _children(x: object) -> list[object]:
    if isinstance(x, MethodType):
        return [x.__self__, x.__func__]
    if isinstance(x, BuiltinFunctionType):
        return [x.__self__]
    found: list[object] = list(getattr(x, "__dict__", {}).values())
    if isinstance(x, FunctionType):
        cells = x.__closure__ or ()
        return [*found, *map(_content, cells), x.__defaults__, x.__kwdefaults__]
    found += _slots(x)
    if isinstance(x, Mapping):
        found += list(x.values())
    if isinstance(x, list | tuple | set | frozenset):
        found += list(x)
    if hasattr(x, "maxlen"):  # deque
        found += list(x)  # type: ignore[call-overload]
    return found


def _slots(x: object) -> Iterator[object]:
    """What the slots of x hold, and the members of a type written in C, such as `partial`.

    Read through their descriptors: names in `__slots__` may be private, or it may be one string.
    """
    for cls in type(x).__mro__:
        for member in vars(cls).values():
            if isinstance(member, MemberDescriptorType):
                try:
                    yield member.__get__(x, type(x))
                except AttributeError:  # not set yet
                    continue


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
