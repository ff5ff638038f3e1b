"""Digests of the sources that a lowered program was made from, cheap enough for every run."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=64)
def digest(*modules: str, apart: frozenset[str] = frozenset()) -> str:
    """Hex digest of the modules' source files and of all that these import from their own package.

    A change in any of them gives another digest, wherever its import is written; a change elsewhere
    does not.  apart: modules to leave out, because the key holds what they contribute.  Raises
    ModuleNotFoundError for a module that has no source file.
    """
    found: dict[str, Path] = {}
    for module in modules:
        found.update(closure(module))
    return digest_files((name, found[name]) for name in sorted(found.keys() - apart))


@lru_cache(maxsize=16)
def digest_folders(package: str, *folders: str) -> str:
    """Hex digest of all Python files in some folders of an installed package.

    For released code: the version alone would miss what its maintainers change in a checkout.
    Raises ModuleNotFoundError for a package that is not installed.
    """
    root = _root(package)
    files = (path for folder in folders for path in sorted((root / folder).rglob("*.py")))
    return digest_files((path.relative_to(root).as_posix(), path) for path in files)


def digest_files(files: Iterable[tuple[str, Path]]) -> str:
    """Hex digest of names and contents, in the order given."""
    out = hashlib.sha256()
    for name, path in files:
        out.update(f"{name}\0".encode())
        out.update(hashlib.sha256(path.read_bytes()).digest())
    return out.hexdigest()


def closure(module: str) -> dict[str, Path]:
    """Source files, by dotted name, of a module and of all that it imports from its own package.

    Imports inside functions count: most heavy imports are there.
    """
    found: dict[str, Path] = {}
    left = [module]
    if _file(module) is None:
        raise ModuleNotFoundError(f"no source file of a module named {module!r}", name=module)
    while left:
        name = left.pop()
        path = _file(name)
        if path is None or name in found:
            continue
        found[name] = path
        left += _imports(name, path)
        if "." in name:
            left.append(name.rpartition(".")[0])  # a package's __init__ runs as well
    return found


def _imports(name: str, path: Path) -> Iterator[str]:
    """Dotted names in a module's imports that may be modules of its own package."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    top = name.partition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        yield from (n for n in names if n.partition(".")[0] == top)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    parent = ".".join(parts[: len(parts) - node.level + 1])
    return f"{parent}.{node.module}" if node.module else parent


def _file(name: str) -> Path | None:
    top, *rest = name.split(".")
    base = _root(top).joinpath(*rest)
    for path in (base / "__init__.py", base.with_suffix(".py") if rest else None):
        if path is not None and path.is_file():
            return path
    return None


@lru_cache(maxsize=16)
def _root(package: str) -> Path:
    """The folder of a top-level package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"no package named {package!r}", name=package)
    return Path(next(iter(spec.submodule_search_locations)))
