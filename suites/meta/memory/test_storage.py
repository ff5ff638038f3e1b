"""The walk that finds a cache's tensors: every way to hold one, and each storage counted once."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.memory.storage import storage_bytes, tensors_of

T = torch.zeros(5)  # what each holder below holds, and nothing else


class Slots:
    __slots__ = ("keys", "unset")

    def __init__(self) -> None:
        self.keys = T


class SlotsBelow(Slots):
    __slots__ = ()


class OneSlot:
    __slots__ = "keys"  # noqa: PLC0205 - a lone name is what is tried here

    def __init__(self) -> None:
        self.keys = T


class PrivateSlot:
    __slots__ = ("__keys",)

    def __init__(self) -> None:
        self.__keys = T


class Attributes:
    def __init__(self) -> None:
        self.keys = T

    def bound(self) -> Tensor:
        return self.keys


class DictWithAttribute(dict[str, int]):
    def __init__(self) -> None:
        super().__init__(length=3)
        self.keys_held = T


class ListWithAttribute(list[int]):
    def __init__(self) -> None:
        super().__init__([3])
        self.keys_held = T


class Fresh(Mapping[int, Any]):
    """Makes its values anew each time, so that a new one may get the address of an old one."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self._read = lambda i: [tensors[i]]
        self._n = len(tensors)

    def __getitem__(self, i: int) -> Any:
        return self._read(i)

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._n))

    def __len__(self) -> int:
        return self._n


def closure() -> Callable[[], Tensor]:
    held = T
    return lambda: held


def method_with_closure() -> Any:
    held = T

    class Holder:
        def peek(self) -> Tensor:
            return held

    return Holder().peek


def default(keys: Tensor = T) -> Tensor:
    return keys


def keyword_default(*, keys: Tensor = T) -> Tensor:
    return keys


def with_attribute() -> Any:
    def function() -> None: ...

    function.keys = T  # type: ignore[attr-defined]
    return function


def buffer() -> nn.Module:
    module = nn.Module()
    module.register_buffer("keys", T, persistent=False)
    return nn.Sequential(module)


@pytest.mark.parametrize(
    "holder",
    [
        T,
        Attributes(),
        Attributes().bound,
        Slots(),
        SlotsBelow(),
        OneSlot(),
        PrivateSlot(),
        SimpleNamespace(a=SimpleNamespace(b=T)),
        [T],
        (0, (T,)),
        {T},
        frozenset({T}),
        deque([T]),
        {"keys": T},
        OrderedDict(keys=[T]),
        DictWithAttribute(),
        ListWithAttribute(),
        Fresh([T]),
        closure(),
        method_with_closure(),
        default,
        keyword_default,
        with_attribute(),
        [T].append,
        partial(print, T),
        partial(print, keys=T),
        partial(closure()),
        buffer(),
    ],
    ids=lambda holder: getattr(holder, "__name__", type(holder).__name__),
)
def test_a_tensor_is_found_wherever_it_is_held(holder: object) -> None:
    (found,) = tensors_of(holder)
    assert found is T


@pytest.mark.parametrize("holder", [None, 3, "keys", b"keys", Attributes, torch, print, [], {}])
def test_what_holds_no_tensor_of_its_own_yields_none(holder: object) -> None:
    assert list(tensors_of(holder)) == []


def test_a_deleted_variable_of_a_closure_is_no_tensor() -> None:
    held = T

    def peek() -> Tensor:
        return held  # noqa: F821 - deleted below

    del held
    assert list(tensors_of(peek)) == []


def test_a_circle_ends_and_a_tensor_is_found_once() -> None:
    a, b = SimpleNamespace(keys=T), SimpleNamespace(keys=T)
    a.other, b.other = b, a
    assert len(list(tensors_of([a, b, a]))) == 1


def test_values_made_anew_are_not_taken_for_those_that_are_gone() -> None:
    tensors = [torch.zeros(1) for _ in range(100)]
    found = {id(t) for t in tensors_of(Fresh(tensors))}
    assert found == {id(t) for t in tensors}


def test_a_view_counts_its_whole_buffer_once() -> None:
    whole = torch.zeros(10, 4)  # 160 bytes
    assert storage_bytes([whole]) == 160
    assert storage_bytes([whole[:1]]) == 160
    assert storage_bytes([whole[:1], whole[5:], whole.T]) == 160
    assert storage_bytes([whole[:1], whole[5:].clone()]) == 160 + 80
    assert storage_bytes([]) == storage_bytes([torch.zeros(0)]) == 0


def test_bytes_are_those_of_the_dtype() -> None:
    sizes = {torch.bool: 1, torch.float16: 2, torch.float32: 4, torch.int64: 8}
    for dtype, size in sizes.items():
        assert storage_bytes([torch.zeros(7, dtype=dtype)]) == 7 * size
