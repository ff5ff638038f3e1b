"""The registered subjects, read from their sources, and what the contract lets them have."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path

from page_parts.source import ROOT, assigned, first_sentence, parse, table

#: The method that a subject of each kind has.
_BODIES = {"attend": "attention", "new_cache": "cache", "open": "decoder"}


@dataclass(frozen=True)
class Subject:
    """A registered subject, read from its source."""

    name: str
    kind: str
    schemes: frozenset[str]
    package: str
    suite: str
    what: str


class Classes:
    """Classes of the package by module, read without importing them."""

    def __init__(self) -> None:
        self._modules: dict[str, dict[str, ast.AST | tuple[str, str]]] = {}

    def lineage(self, module: str, name: str) -> list[ast.ClassDef]:
        """A class and its bases within the package, nearest first."""
        found = self._find(module, name)
        if found is None:
            return []
        where, node = found
        out = [node]
        for base in node.bases:
            if isinstance(base, ast.Name):
                out += self.lineage(where, base.id)
        # A base that several classes share comes behind all of them.
        return [c for i, c in enumerate(out) if c not in out[i + 1 :]]

    def _find(self, module: str, name: str) -> tuple[str, ast.ClassDef] | None:
        found = self._names(module).get(name)
        if isinstance(found, tuple):
            return self._find(*found) if found[0].startswith("harness.") else None
        return (module, found) if isinstance(found, ast.ClassDef) else None

    def _names(self, module: str) -> dict[str, ast.AST | tuple[str, str]]:
        if module not in self._modules:
            path = ROOT / Path(*module.split("."))
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            names: dict[str, ast.AST | tuple[str, str]] = {}
            for node in parse(path).body:
                if isinstance(node, ast.ClassDef):
                    names[node.name] = node
                elif isinstance(node, ast.ImportFrom):
                    for alias in node.names:
                        names[alias.asname or alias.name] = (node.module or "", alias.name)
            self._modules[module] = names
        return self._modules[module]


def subjects() -> list[Subject]:
    """Every registered subject, in the order of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    classes = Classes()
    out = []
    for name, target in project["entry-points"]["harness.subjects"].items():
        module, _, attribute = target.partition(":")
        out.append(_subject(name, classes.lineage(module, attribute)))
    return out


def _subject(name: str, lineage: list[ast.ClassDef]) -> Subject:
    members = [node for cls in lineage for node in cls.body]
    methods = [node.name for node in members if isinstance(node, ast.FunctionDef)]
    kind = next(_BODIES[method] for method in methods if method in _BODIES)
    held: dict[str, ast.expr] = {}
    for target, value in (pair for node in members for pair in assigned(node)):
        held.setdefault(target, value)
    return Subject(
        name=name,
        kind=kind,
        schemes=frozenset(_value(held["schemes"])),
        package=str(_value(held["package"])) if "package" in held else "",
        suite=str(_value(held["suite"])) if "suite" in held else "",
        what=first_sentence(ast.get_docstring(lineage[0]) or ""),
    )


def _value(expression: ast.expr) -> object:
    """The value of a class attribute: a literal, or a set made from SCHEMES."""
    from harness.law import SCHEMES

    code = compile(ast.Expression(expression), "<attribute>", "eval")
    return eval(code, {"__builtins__": {}, "SCHEMES": SCHEMES, "frozenset": frozenset})


def versions() -> dict[str, str]:
    """Pinned versions of the packages under test."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return dict(line.split("==", 1) for line in lines if "==" in line and line[0] != "#")


def _package(subject: Subject) -> str:
    if not subject.package:
        return "torch" if subject.name.startswith("torch.") else "this one"
    version = versions().get(subject.package, "")
    return f"{subject.package} {version}".strip()


def _schemes(subject: Subject) -> str:
    order = ("full", "uniform", "interleaved", "sink", "chunked")
    return ", ".join(scheme for scheme in order if scheme in subject.schemes)


def subject_table() -> str:
    """Subject, package, schemes."""
    rows = [[f"`{s.name}`", _package(s), _schemes(s)] for s in subjects()]
    return table(["subject", "package", "schemes"], rows)


def subject_details() -> str:
    """Subject, kind, what it is, and the suite that runs it."""
    rows = [
        [f"`{s.name}`", s.kind, s.what, f"`suites/test_{s.suite}.py`" if s.suite else "by scheme"]
        for s in subjects()
    ]
    return table(["subject", "kind", "what it is", "suite"], rows)


def optional_members(before: str) -> str:
    """The optional members that the contract lists; the page's own table where it lists none."""
    for node in parse(ROOT / "harness" / "contract.py").body:
        names = [name for name, _ in assigned(node)]
        if "OPTIONAL_MEMBERS" in names and isinstance(node, ast.AnnAssign):
            assert isinstance(node.value, ast.Tuple)
            rows = [_member(call) for call in node.value.elts if isinstance(call, ast.Call)]
            return table(["written", "of", "meaning"], rows)
    return before


def _member(call: ast.Call) -> list[str]:
    """form, of and meaning of one `OptionalMember`; `of` may be a name of the module."""
    constants = dict(
        pair for node in parse(ROOT / "harness" / "contract.py").body for pair in assigned(node)
    )
    _, of, form, meaning = (
        ast.literal_eval(constants[arg.id] if isinstance(arg, ast.Name) else arg)
        for arg in call.args[:4]
    )
    return [f"`{form}`", of, meaning]
