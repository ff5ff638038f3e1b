"""The registered subjects, read from their sources, and what the contract lets them have."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass

from harness.run.declared import declared
from page_parts.source import ROOT, assigned, first_sentence, parse, table


@dataclass(frozen=True)
class Subject:
    """A registered subject, read from its source."""

    name: str
    kind: str
    schemes: frozenset[str]
    package: str
    suite: str
    what: str


def subjects() -> list[Subject]:
    """Every registered subject, in the order of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    out = []
    for name, target in project["entry-points"]["harness.subjects"].items():
        module, _, attribute = target.partition(":")
        said = declared(module, attribute)
        out.append(
            Subject(
                name, said.kind, said.schemes, said.package, said.suite, first_sentence(said.what)
            )
        )
    return out


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
