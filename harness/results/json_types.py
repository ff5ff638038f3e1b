"""Reads dataclasses from JSON and refuses every value that is not of its field's type.

Results may come from another machine, or from a disk that was full.  A wrong value must be
reported here, and not break the code that uses the field.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from types import NoneType
from typing import Any, TypeVar, cast, get_args, get_type_hints

from harness.results.finding import Status

_Reader = Callable[[str, Any], Any]

_INT64 = 2**63  # frames hold integers as Int64
_ROW = 3  # position, expected keys, recovered keys


_Made = TypeVar("_Made")


def made(kind: type[_Made], data: Any) -> _Made:
    """An instance of a dataclass from JSON data.  Raises ValueError naming the wrong field."""
    readers = _readers(cast("Hashable", kind))
    if not isinstance(data, dict):
        raise ValueError(f"{reprlib.repr(data)} is not a {kind.__name__}")
    if unknown := sorted(set(data) - set(readers)):
        raise ValueError(f"a {kind.__name__} has no field {reprlib.repr(unknown[0])}")
    try:
        return kind(**{name: readers[name](name, data[name]) for name in data})
    except TypeError as error:  # a field without a default is missing
        raise ValueError(str(error)) from error


@cache
def _readers(kind: Any) -> Mapping[str, _Reader]:
    """The reader of each field of a dataclass: by name where `_BY_NAME` has it, else by type."""
    return {
        name: _BY_NAME.get(name) or _reader(hint) for name, hint in get_type_hints(kind).items()
    }


def _reader(hint: Any) -> _Reader:
    """The reader of a type.  Raises KeyError for a type that no field may have."""
    if NoneType not in get_args(hint):
        return _READERS[hint]
    (inner,) = (part for part in get_args(hint) if part is not NoneType)
    read = _READERS[inner]
    return lambda name, value: None if value is None else read(name, value)


def _status(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in set(Status):
        raise _wrong(name, f"one of {', '.join(Status)}", value)
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a string", value)
    return value.encode("utf-8", "replace").decode("utf-8")  # replaces lone surrogates


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
        raise _wrong(name, "an integer", value)
    return value


def _number(name: str, value: Any) -> float:
    """A number; infinities and NaN are strings in JSON."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _wrong(name, "a number", value)
    try:
        return float(value)
    except (ValueError, OverflowError) as error:
        raise _wrong(name, "a number", value) from error


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return value


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise _wrong(name, "a list", value)
    return value


def _row(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or len(value) != _ROW:
        raise _wrong(name, "a list of (position, expected keys, recovered keys)", value)
    keys = [[_integer(name, key) for key in _list(name, part)] for part in value[1:]]
    return [_integer(name, value[0]), *keys]


def _rows(name: str, value: Any) -> list[Any]:
    return [_row(name, row) for row in _list(name, value)]


def _texts_by_text(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object of strings", value)
    return {_text(name, key): _text(name, item) for key, item in value.items()}


def _numbers(name: str, value: Any) -> list[float]:
    return [_number(name, item) for item in _list(name, value)]


def _numbers_by_text(name: str, value: Any) -> dict[str, list[float]]:
    if not isinstance(value, dict):
        raise _wrong(name, "an object of lists of numbers", value)
    return {_text(name, key): _numbers(name, item) for key, item in value.items()}


_READERS: dict[Any, _Reader] = {
    str: _text,
    int: _integer,
    float: _number,
    bool: _truth,
    list[str]: lambda name, value: [_text(name, item) for item in _list(name, value)],
    list[float]: _numbers,
    dict[str, str]: _texts_by_text,
    dict[str, list[float]]: _numbers_by_text,
}
_BY_NAME: dict[str, _Reader] = {"status": _status, "rows": _rows}


def _wrong(name: str, allowed: str, value: Any) -> ValueError:
    return ValueError(f"{name} must be {allowed}, got {reprlib.repr(value)}")
