"""A subject as the harness runs it: everything that is read from its class, once.

`harness.run.registry.load` makes a target from a name, and `Target.of` from a class.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from harness import __version__
from harness.cases.case import Case
from harness.contract import OPTIONAL_MEMBERS, ContractError, kind_of, optional
from harness.results.finding import NAMES


@dataclass(frozen=True)
class Target:
    """A subject's class and its facts.

    target: its name on the command line.  name: its name in the records.  body: "attention",
    "cache" or "decoder".  version: that of the package it adapts or belongs to.  offers: names of
    the optional members that it has.  The other fields are the optional members of these names
    (`OPTIONAL_MEMBERS`).
    """

    target: str
    name: str
    subject: type[Any]
    body: str
    version: str
    package: str | None
    suite: str
    device: str
    checks: frozenset[str] | None
    covers: Callable[[str, Case], bool] | None
    offers: frozenset[str]

    @classmethod
    def of(cls, subject: type[Any], target: str = "", name: str = "") -> Target:
        """The target of a class; its target and name are by default made from the class.

        Raises ContractError for a class that is not a subject, or names checks that do not exist.
        """
        _require_stored(subject)
        return cls(
            target=target or f"{subject.__module__}:{subject.__qualname__}",
            name=name or str(subject.name),
            subject=subject,
            body=kind_of(subject),
            version=_version(subject),
            package=package_of(subject),
            suite=optional(subject, "suite"),
            device=_device(subject),
            checks=_checks(subject),
            covers=optional(subject, "covers"),
            offers=frozenset(
                member.name
                for member in OPTIONAL_MEMBERS
                if optional(subject, member.name) != member.default
            ),
        )

    @property
    def schemes(self) -> frozenset[str]:
        """The schemes that it claims."""
        return frozenset(self.subject.schemes)

    def plans(self, check: str, case: Case) -> bool:
        """False for a check or case that the subject leaves out of its plan."""
        if self.checks is not None and check not in self.checks:
            return False
        return self.covers is None or bool(self.covers(check, case))


def as_target(subject: Target | type[Any]) -> Target:
    """The target itself, or that of a class."""
    return subject if isinstance(subject, Target) else Target.of(subject)


def package_of(subject: type[Any]) -> str | None:
    """The distribution that a subject adapts; None for one that adapts none."""
    package = optional(subject, "package")
    return package if isinstance(package, str) else None


def _version(subject: type[Any]) -> str:
    """The version of the distribution that the subject adapts or belongs to; "" if unknown."""
    package = package_of(subject)
    if package is None and subject.__module__.partition(".")[0] == "harness":
        return __version__
    try:
        return metadata.version(package) if package else ""
    except metadata.PackageNotFoundError:
        return ""


#: Kinds of device that torch may have, beside the CPU.
_ACCELERATORS = ("cuda", "mps", "xpu")


def _device(subject: type[Any]) -> str:
    """The device that it names.  Raises ContractError for one that torch does not have here."""
    named = str(optional(subject, "device"))
    if named == "cpu":
        return named
    import torch

    here = ["cpu"]
    for kind in _ACCELERATORS:
        module = getattr(torch, kind)
        if module.is_available():
            here += [kind, *(f"{kind}:{i}" for i in range(module.device_count()))]
    if named not in here:
        raise ContractError(
            f"{subject.__module__}:{subject.__qualname__}.device must be a device that torch has "
            f"here, {', '.join(here)}; got {named!r}"
        )
    return named


#: What `stored` may name.
_STORED = ("float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2")


def _require_stored(subject: type[Any]) -> None:
    """Raise ContractError unless `stored` is absent or names a dtype that values round to."""
    stored = optional(subject, "stored")
    if stored is not None and stored not in _STORED:
        raise ContractError(
            f"{subject.__module__}:{subject.__qualname__}.stored must be one of "
            f"{', '.join(_STORED)}; got {stored!r}"
        )


def _checks(subject: type[Any]) -> frozenset[str] | None:
    """The checks that it names; None for all.  Raises ContractError for an unknown name."""
    checks = optional(subject, "checks")
    if checks is None:
        return None
    if not isinstance(checks, frozenset | set) or not checks <= set(NAMES):
        raise ContractError(
            f"{subject.__module__}:{subject.__qualname__}.checks must be a frozenset out of "
            f"{', '.join(NAMES)}, got {checks!r}"
        )
    return frozenset(checks)
