"""Picks profiles by name and sets their options, which a user writes as NAME=VALUE."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import Field, fields, replace
from typing import Any

from harness.estimate.fields import quoted
from harness.estimate.geometry import Geometry
from harness.estimate.profiles import PROFILES, Profile, RequestError
from harness.estimate.table import defaults

_BOOLS = {"true": True, "false": False}


def chosen(geometry: Geometry, runtimes: Sequence[str], options: Iterable[str]) -> list[Profile]:
    """The profiles with these names (all of them if none is given), with these options set.

    An option, such as "n_ubatch=2048", is set on every chosen profile that has a field of that
    name.  Raises RequestError naming an unknown runtime, an unknown option or a wrong value.
    """
    for name in runtimes:
        if name not in PROFILES:
            near = difflib.get_close_matches(name, PROFILES, n=1)
            hint = f"; near: {near[0]}" if near else ""
            raise RequestError(
                f"runtime must be one of {', '.join(PROFILES)}, got {quoted(name)}{hint}"
            )
    profiles = [p for p in defaults(geometry) if not runtimes or p.name in runtimes]
    for option in options:
        profiles = _set(profiles, option)
    return profiles


def _set(profiles: Sequence[Profile], option: str) -> list[Profile]:
    name, equals, text = option.partition("=")
    have = {field.name: field for profile in profiles for field in fields(profile)}
    if not equals or name not in have:
        allowed = ", ".join(sorted(have)) or "(these runtimes have no options)"
        raise RequestError(
            f"option must be NAME=VALUE with NAME one of {allowed}, got {quoted(option)}"
        )
    value = _value(have[name], text)
    return [
        replace(profile, **{name: value}) if name in _names(profile) else profile
        for profile in profiles
    ]


def _names(profile: Profile) -> set[str]:
    return {field.name for field in fields(profile)}


def _value(field: Field[Any], text: str) -> object:
    """The text as a value of the field's type."""
    kind = str(field.type)
    try:
        if kind == "bool":
            return _BOOLS[text.lower()]
        return float(text) if kind.startswith("float") else int(text)
    except (KeyError, ValueError):
        what = {"bool": "true or false"}.get(kind, "a number")
        raise RequestError(f"{field.name} must be {what}, got {quoted(text)}") from None
