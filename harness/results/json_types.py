"""Fields of records as JSON has them: each value is of the type its field states, or is refused.

Results may come from another machine, or from a disk that was full: what is wrong must be named
here, and not break whoever reads the field.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any

from harness.results.finding import Status

_INT64 = 2**63  # frames hold integers as Int64
_ROW = 3  # position, expected keys, recovered keys


def read(kind: str, name: str, value: Any) -> Any:
    """The value of the field `name` whose annotation is `kind`.  Raises ValueError naming it."""
    if name == "status":
        return _status(name, value)
    if name == "rows":
        return [_row(name, row) for row in _list(name, value)]
    if kind.endswith(" | None"):
        return None if value is None else _READERS[kind.removesuffix(" | None")](name, value)
    return _READERS[kind](name, value)


def _status(name: str, value: Any) -> str:
    if not isinstance(value, str) or value not in set(Status):
        raise _wrong(name, f"one of {', '.join(Status)}", value)
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "a text", value)
    return value.encode("utf-8", "replace").decode("utf-8")  # no half of a surrogate pair


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not -_INT64 <= value < _INT64:
        raise _wrong(name, "an integer", value)
    return value


def _number(name: str, value: Any) -> float:
    """Infinities and NaN are texts in a record."""
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


def _texts_by_text(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _wrong(name, "a table of texts", value)
    return {_text(name, key): _text(name, item) for key, item in value.items()}


def _numbers(name: str, value: Any) -> list[float]:
    return [_number(name, item) for item in _list(name, value)]


def _numbers_by_text(name: str, value: Any) -> dict[str, list[float]]:
    if not isinstance(value, dict):
        raise _wrong(name, "a table of lists of numbers", value)
    return {_text(name, key): _numbers(name, item) for key, item in value.items()}


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "str": _text,
    "int": _integer,
    "float": _number,
    "bool": _truth,
    "list[str]": lambda name, value: [_text(name, item) for item in _list(name, value)],
    "list[float]": _numbers,
    "dict[str, str]": _texts_by_text,
    "dict[str, list[float]]": _numbers_by_text,
}


def _wrong(name: str, allowed: str, value: Any) -> ValueError:
    return ValueError(f"{name} must be {allowed}, got {reprlib.repr(value)}")
