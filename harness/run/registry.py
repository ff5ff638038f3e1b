"""Finds the subject that a target names.

A target is a registered name (entry points of the group ``harness.subjects``),
``package.module:Name`` or ``path/to/file.py:Name``.  `load` returns a `Target`: the class and
what the harness reads from it.  Instances are made without arguments.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import re
import sys
import tomllib
import traceback
from difflib import get_close_matches
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.run.target import Target

GROUP = "harness.subjects"
_PACKAGE = "attention-harness"
#: A subject's name is a column of files, a file's stem, and part of a pytest item's id.
_NAME = re.compile(r"[A-Za-z0-9._-]+")
_FORMS = "a registered name, package.module:Name or path/to/file.py:Name"


class TargetError(Exception):
    """The target cannot be loaded or used; the message is one line for the user."""


class NotInstalled(Exception):
    """The released package that a subject adapts is not installed."""

    def __init__(self, package: str) -> None:
        super().__init__(f"{package} is not installed")
        self.package = package


@cache
def _entry_points() -> dict[str, metadata.EntryPoint]:
    points = {point.name: point for point in metadata.entry_points(group=GROUP)}
    return points if installed() else _of_the_checkout() | points


def installed() -> bool:
    """False in a checkout where only the dependencies are installed."""
    try:
        return bool(metadata.version(_PACKAGE))
    except metadata.PackageNotFoundError:
        return False


def _of_the_checkout() -> dict[str, metadata.EntryPoint]:
    """The subjects in pyproject.toml, for suites run in a checkout that is not installed."""
    path = Path(__file__).parents[2] / "pyproject.toml"
    if not path.is_file():
        return {}
    table = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["entry-points"][GROUP]
    return {name: metadata.EntryPoint(name, value, GROUP) for name, value in table.items()}


def names() -> list[str]:
    """The names of the registered subjects, sorted."""
    return sorted(_entry_points())


def place(name: str) -> tuple[str, str]:
    """The module and class of a registered subject, without importing them."""
    point = _entry_points()[name]
    return point.module, point.attr


def load(target: str) -> Target:
    """The subject that `target` names, checked against the contract.

    Raises TargetError, or NotInstalled for a subject whose released package is not installed.
    """
    if target in _entry_points():
        return _checked(target, *_registered(target))
    location, colon, name = target.rpartition(":")
    is_file = (location if colon else target).endswith(".py")
    if not colon or not name.isidentifier():
        raise TargetError(_malformed(target, is_file))
    module = _import_file(Path(location)) if is_file else _import_module(location)
    return _checked(target, module, name)


def _label(target: str, subject: type[Any]) -> str:
    """The name under which records file a subject.

    A registered name belongs to the registered subject.  Another class of that name is filed under
    its target, so that the registered subject's known failures do not cover it.
    """
    name = str(subject.name)
    return target if target in _entry_points() or name in _entry_points() else name


def _malformed(target: str, is_file: bool) -> str:
    if is_file:
        return f"target {target!r} names no class; write path/to/file.py:Name"
    near = get_close_matches(target, names(), n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"allowed: {_FORMS}"
    return f"unknown target {target!r}; {hint}"


def _registered(name: str) -> tuple[ModuleType, str]:
    """The module and attribute of a registered subject."""
    point = _entry_points()[name]
    try:
        return importlib.import_module(point.module), point.attr
    except ModuleNotFoundError as error:
        raise _absent_or_broken(name, error) from error
    except Exception as error:
        raise TargetError(f"{name}: importing {point.module} raised {_brief(error)}") from error


def _absent_or_broken(name: str, error: ModuleNotFoundError) -> Exception:
    """NotInstalled if a whole package is absent; TargetError if it lacks a module."""
    package = (error.name or "").partition(".")[0]
    if package and package not in sys.modules and importlib.util.find_spec(package) is None:
        return NotInstalled(package)
    return TargetError(f"{name}: {_brief(error)}")


def _look_into(folder: Path) -> None:
    """Make a folder's modules importable, last, so that they do not hide other modules."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _import_module(name: str) -> ModuleType:
    _look_into(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name + ".").startswith(error.name + "."):
            raise TargetError(f"no module named {error.name!r}; allowed: {_FORMS}") from error
        raise TargetError(f"importing {name} raised {_brief(error)}") from error
    except SyntaxError as error:
        raise TargetError(_syntax(error.filename or name, error)) from error
    except (Exception, SystemExit) as error:
        raise TargetError(f"importing {name} raised {_brief(error)}") from error


def _import_file(path: Path) -> ModuleType:
    """Import a file under a unique name, with its folder importable as it is for a script."""
    if not path.is_file():
        raise TargetError(f"no such file: {path}")
    path = path.resolve()
    name = f"target_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TargetError(f"{path.name} cannot be imported as a Python file")
    _look_into(path.parent)
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        del sys.modules[name]
        raise TargetError(_syntax(error.filename or str(path), error)) from error
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)
        ]
        where = f", line {lines[-1]}" if lines else ""
        raise TargetError(f"{path.name}{where}: {_brief(error)}") from error
    return module


def _checked(target: str, module: ModuleType, name: str) -> Target:
    subject = getattr(module, name, None)
    if subject is None:
        raise TargetError(_missing_class(target, module, name))
    if not isinstance(subject, type):
        raise TargetError(f"{target}: {name} is a {type(subject).__name__}, not a class")
    _require_package(subject)
    return _target(target, subject)


def _missing_class(target: str, module: ModuleType, name: str) -> str:
    own = [n for n, obj in vars(module).items() if isinstance(obj, type) and not n.startswith("_")]
    here = [n for n in own if vars(module)[n].__module__ == module.__name__] or own
    near = get_close_matches(name, here, n=3, cutoff=0.4)
    if near:
        return f"{target}: no class {name}; did you mean {', '.join(near)}?"
    return f"{target}: no class {name}; classes there: {', '.join(here) or 'none'}"


def _require_package(subject: type[Any]) -> None:
    from harness.run.target import package_of

    package = package_of(subject)
    if package is not None:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError as error:
            raise NotInstalled(package) from error


def _target(target: str, subject: type[Any]) -> Target:
    """The target of a class.

    Raises TargetError unless `subject()` works and the instance has the contract's members.
    """
    from harness.contract import ContractError, kind_of
    from harness.run.target import Target

    try:
        inspect.signature(subject).bind()
    except TypeError as error:
        raise TargetError(
            f"{target}: the harness makes instances with no arguments, but "
            f"{subject.__name__}() fails: {error}"
        ) from error
    except ValueError:
        pass  # a class written in C has no signature: the call below decides
    try:
        kind_of(subject())
        made = Target.of(subject, target, _label(target, subject))
    except ContractError as error:
        # A file is imported under a name that would mean nothing to its author.
        said = str(error).replace(f"{subject.__module__}:{subject.__qualname__}", subject.__name__)
        raise TargetError(f"{target}: {said}") from error
    except ModuleNotFoundError as error:
        raise _absent_or_broken(target, error) from error
    except Exception as error:
        raise TargetError(f"{target}: {subject.__name__}() raised {_brief(error)}") from error
    if not _NAME.fullmatch(subject.name):
        raise TargetError(
            f"{target}: {subject.__name__}.name must consist of letters, digits and . _ -, "
            f"got {subject.name[:60]!r}"
        )
    return made


def _syntax(filename: str, error: SyntaxError) -> str:
    line = "" if error.lineno is None else f", line {error.lineno}"
    return f"{Path(filename).name}{line}: syntax error: {error.msg}"


def _brief(error: BaseException) -> str:
    """One line: the exception's type and the first line of its text."""
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
