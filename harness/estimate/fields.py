"""Typed reading of a model's metadata: a wrong value raises an error that names its key."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

from harness.estimate.geometry import Fact, GeometryError, Sure

#: No figure of a real model is larger; a file that has a larger one is damaged.
MOST = 1 << 20
MAX_LAYERS = 1 << 12

#: No name of an architecture is longer.
MOST_TEXT = 200

_MISSING = object()


class Fields:
    """The keys of one config or metadata block.

    name: the file or model, for messages.  prefix: what the file puts before these keys, for
    messages ("text_config.", "gemma3.").  facts: what was read, in order.
    spelled: how the file itself writes a key.  defaults: where the value of a key that the file
    leaves out comes from.
    read: the keys that were looked at.
    A key that is missing or null reads as None; `states` tells the two apart.
    """

    def __init__(
        self,
        name: str,
        data: Mapping[str, Any],
        prefix: str = "",
        spelled: Mapping[str, str] | None = None,
        defaults: Mapping[str, str] | None = None,
    ) -> None:
        self.name, self.data, self.prefix = name, data, prefix
        self.spelled, self.defaults = spelled or {}, defaults or {}
        self.facts: list[Fact] = []
        self.read: set[str] = set()

    def value(self, key: str) -> Any:
        """What the config has under a key, or None."""
        self.read.add(key)
        return self.data.get(key)

    def written(self, key: str) -> str:
        """A key as the file has it, with what stands before it."""
        return f"{self.prefix}{self.spelled.get(key, key)}"

    def states(self, key: str) -> bool:
        """True if the key is there, even if it is null."""
        self.read.add(key)
        return key in self.data

    def has(self, key: str) -> bool:
        """True if the key is there and not null."""
        return self.value(key) is not None

    def integer(self, key: str, least: int = 1, most: int = MOST) -> int | None:
        """An integer, or None.  Raises GeometryError for anything else, a bool included."""
        value = self.value(key)
        if value is None:
            return None
        return self.check(key, value, least, most)

    def check(self, key: str, value: object, least: int = 1, most: int = MOST) -> int:
        """The value, an integer in least…most.  Raises GeometryError naming the key otherwise."""
        if isinstance(value, float) and value.is_integer():  # JSON does not tell 512.0 from 512
            value = int(value)
        # In Python a bool is an int, and numpy's integers are not.
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(f"{self.written(key)} must be an integer in {least}…{most}", value)
        return value

    def flag(self, key: str) -> bool | None:
        """A bool, or None.  Raises GeometryError for anything else."""
        value = self.value(key)
        if value is not None and not isinstance(value, bool):
            raise self.error(f"{self.written(key)} must be true, false or null", value)
        return value

    def text(self, key: str, most: int = MOST_TEXT) -> str | None:
        """A string of at most `most` characters, or None.

        Raises GeometryError for anything else.
        """
        value = self.value(key)
        if value is not None and (not isinstance(value, str) or len(value) > most):
            rule = f"must be a string of at most {most} characters"
            raise self.error(f"{self.written(key)} {rule}", value)
        return value

    def first(self, *keys: str, least: int = 1, most: int = MOST) -> tuple[str, int]:
        """The first of these keys that has a value, and the value.

        Raises GeometryError, saying what was read, if none has.
        """
        for key in keys:
            value = self.integer(key, least, most)
            if value is not None:
                return key, value
        raise self.missing(keys[0])

    def per_layer(self, key: str, n: int, least: int = 1) -> list[int] | None:
        """One integer per layer, from one number or a list of n; None if the key has no value."""
        value = self.value(key)
        if value is None:
            return None
        return [self.check(key, v, least) for v in self.sequence(key, n, broadcast=True)]

    def sequence(self, key: str, n: int, *, broadcast: bool = False) -> list[Any]:
        """The list of n items under a key; with `broadcast`, a single item is repeated n times.

        Raises GeometryError for anything else.
        """
        self.read.add(key)
        value = self.data.get(key, _MISSING)
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            if broadcast:
                return [value] * n
            raise self.error(f"{self.written(key)} must be a list of {n}", value)
        if len(value) != n:
            raise GeometryError(
                f"{self.name}: {self.written(key)} must have one entry per layer, {n}, "
                f"got {len(value)}"
            )
        return list(value)

    def part(self, key: str) -> Fields | None:
        """The fields under a key, or None.  Raises GeometryError for anything but a mapping."""
        value = self.value(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.error(f"{self.written(key)} must map names to values", value)
        return Fields(self.name, value, f"{self.written(key)}.")

    def overridden(self, key: str, values: Sequence[int]) -> list[int]:
        """The values, one per layer, with those that `per_layer_config` overrides.

        `per_layer_config` (transformers 5) maps the index of a layer to its own fields.  Raises
        GeometryError for anything but a mapping, an index that is not a layer's, or a value that is
        not an integer.
        """
        layers = self.value("per_layer_config")
        values, changed = list(values), False
        if layers is None:
            return values
        if not isinstance(layers, Mapping):
            raise self.error(f"{self.prefix}per_layer_config must map layers to fields", layers)
        for index, part in layers.items():
            at = _layer(index, len(values))
            if at is None or not isinstance(part, Mapping):
                raise self.error(f"{self.prefix}per_layer_config must map layers to fields", index)
            if part.get(key) is not None:
                values[at] = self.check(f"per_layer_config.{index}.{key}", part[key])
                changed = True
        if changed:
            self.stated(key, sorted(set(values)), f"per_layer_config.*.{key}")
        return values

    def note(self, field: str, value: object, source: str, sure: Sure) -> None:
        """Record a figure and where it comes from.  source: a rule in words."""
        self.facts.append(Fact(field, _short(value), source, sure))

    def stated(self, field: str, value: object, key: str) -> None:
        """Record a figure that the file gives under `key`, or the default that stands for it."""
        if key in self.defaults:
            self.note(field, value, self.defaults[key], Sure.FAMILY)
        else:
            self.note(field, value, self.written(key), Sure.STATED)

    def missing(self, key: str) -> GeometryError:
        """The error for a required key that is missing; it also says what was read."""
        read = ", ".join(f"{fact.source}={fact.value}" for fact in self.facts) or "nothing useful"
        return GeometryError(f"{self.name}: {self.prefix}{key} is missing; read: {read}")

    def error(self, rule: str, value: object) -> GeometryError:
        """The error for a value that breaks a rule."""
        return GeometryError(f"{self.name}: {rule}, got {quoted(value)}")


def _layer(index: object, n: int) -> int | None:
    """The index of one of n layers, from a number or its digits, which may be padded ("05")."""
    digits = str(index) if isinstance(index, int | str) and not isinstance(index, bool) else ""
    at = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 9 else n
    return at if at < n else None


def _short(value: object) -> str:
    """A value for the list of facts; a string stands there without quotes."""
    return _cut(value) if isinstance(value, str) else quoted(value)


def quoted(value: object, most: int = 60) -> str:
    """A value as Python writes it, in at most `most` characters: '26' is a string, 26 a number.

    Never raises, whatever the value is, and takes no long time over a large one.
    """
    if isinstance(value, str | bytes):
        return _cut(repr(value[:most]), most)
    return _cut(_REPR.repr(value), most)


class _Repr(reprlib.Repr):
    """Looks neither deep into a value nor at all of it."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlist = self.maxtuple = self.maxdict = 20

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002
        """Python refuses to write an integer of more than 4300 digits."""
        return str(x) if x.bit_length() < 128 else f"an integer of {x.bit_length()} bits"


_REPR = _Repr()


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
