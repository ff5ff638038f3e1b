"""What the registered subjects of this package declare, read from their sources.

Importing them takes seconds, since each imports the package that it adapts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
#: The method that a subject of each kind has.
_BODIES = {"attend": "attention", "new_cache": "cache", "open": "decoder"}


@dataclass(frozen=True)
class Declared:
    """A subject as its class declares it.

    package: the distribution that it adapts, or "".  suite: the suite that runs it, or "" for those
    of its schemes.  what: the docstring of its class.
    """

    kind: str
    schemes: frozenset[str]
    package: str
    suite: str
    what: str


def declared(module: str, name: str) -> Declared:
    """What a class of this package declares.  Raises ValueError where the source does not tell."""
    lineage = _lineage(module, name)
    if not lineage:
        raise ValueError(f"{module}:{name} is no class of this package")
    members = [node for cls in lineage for node in cls.body]
    methods = [node.name for node in members if isinstance(node, ast.FunctionDef)]
    kind = next((_BODIES[method] for method in methods if method in _BODIES), "")
    held: dict[str, ast.expr] = {}
    for target, value in (pair for node in members for pair in assigned(node)):
        held.setdefault(target, value)
    if not kind or "schemes" not in held:
        raise ValueError(f"{module}:{name} does not say what it is")
    schemes = _value(held["schemes"])
    if not isinstance(schemes, frozenset | set):
        raise ValueError(f"{module}:{name}.schemes is no set")
    return Declared(
        kind=kind,
        schemes=frozenset(schemes),
        package=str(_value(held["package"])) if "package" in held else "",
        suite=str(_value(held["suite"])) if "suite" in held else "",
        what=ast.get_docstring(lineage[0]) or "",
    )


def assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of a class attribute; `a, b = 1, 2` is two."""
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        targets, whole = [node.target], node.value
    elif isinstance(node, ast.Assign):
        targets, whole = list(node.targets), node.value  # type: ignore[arg-type]
    else:
        return
    for target in targets:
        if isinstance(target, ast.Name):
            yield target.id, whole
        elif isinstance(target, ast.Tuple) and isinstance(whole, ast.Tuple):
            for each, value in zip(target.elts, whole.elts, strict=True):
                if isinstance(each, ast.Name):
                    yield each.id, value


def _lineage(module: str, name: str) -> list[ast.ClassDef]:
    """A class and its bases within the package, nearest first."""
    found = _find(module, name)
    if found is None:
        return []
    where, node = found
    out = [node]
    for base in node.bases:
        if isinstance(base, ast.Name):
            out += _lineage(where, base.id)
    # A base that several classes share comes behind all of them.
    return [c for i, c in enumerate(out) if c not in out[i + 1 :]]


def _find(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """The module that defines a class, and the class; None where it is not in this package."""
    if module.partition(".")[0] != "harness":
        return None
    found = _names(module).get(name)
    if isinstance(found, tuple):
        return _find(*found)
    return (module, found) if found is not None else None


@cache
def _names(module: str) -> dict[str, ast.ClassDef | tuple[str, str]]:
    """The classes of a module, and where the names come from that it imports."""
    path = _ROOT / Path(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names: dict[str, ast.ClassDef | tuple[str, str]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names[node.name] = node
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                names[alias.asname or alias.name] = (node.module or "", alias.name)
    return names


def _value(expression: ast.expr) -> object:
    """The value of a class attribute: a literal, or a set made from SCHEMES.  Raises ValueError."""
    from harness.law import SCHEMES

    code = compile(ast.Expression(expression), "<attribute>", "eval")
    try:
        return eval(code, {"__builtins__": {}, "SCHEMES": SCHEMES, "frozenset": frozenset})
    except Exception as error:
        raise ValueError(f"{ast.unparse(expression)} is no plain value") from error
