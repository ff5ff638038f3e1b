"""Writes the generated parts of the documentation: ``python docs/generate.py [--check]``.

A generated part of a page stands between ``<!-- generated: NAME -->`` and ``<!-- end -->``.  Each
is made from the code that it describes, without PyTorch and without the packages under test, so
that it can be made, and checked, anywhere.

``--check`` writes nothing and ends with status 1 where a page is out of date.  ``--kills FILE``
takes over the kill table that `harness kills` wrote (``reports/latest/kills.json``).  ``--outputs``
runs the examples again and takes over what they print.
"""

from __future__ import annotations

import argparse
import ast
import csv
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

DOCS = ROOT / "docs"
KILLS = DOCS / "kills.csv"
PAGES = (ROOT / "README.md", *sorted(DOCS.glob("*.md")))

_PART = re.compile(r"(<!-- generated: (?P<name>[^\n]+?) -->\n)(?P<body>.*?)(<!-- end -->)", re.S)
#: The method that a subject of each kind has.
_BODIES = {"attend": "attention", "new_cache": "cache", "open": "decoder"}


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = " ".join(text.strip().split("\n\n", 1)[0].split())
    end = re.search(r"\.(?= [A-Z]|$)", paragraph)
    return re.sub(r"``([^`]+)``", r"`\1`", paragraph[: end.end()] if end else paragraph)


def parse(path: Path) -> ast.Module:
    """The syntax tree of a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"))


# --- checks and defects


def check_names() -> tuple[str, ...]:
    """The checks, in the order of the report."""
    from harness.results.finding import NAMES

    return NAMES


def checks() -> str:
    """When each check holds, and for which bodies it is planned."""
    from harness.results import finding

    declared = getattr(finding, "CHECK_INFO", None)
    if declared is not None:
        rows = [[f"`{info.name}`", info.holds, ", ".join(info.bodies)] for info in declared]
        return table(["check", "holds when", "subjects"], rows)
    said = {
        node.name: first_sentence(ast.get_docstring(node) or "")
        for path in sorted((ROOT / "harness" / "checks").glob("*.py"))
        for node in parse(path).body
        if isinstance(node, ast.FunctionDef) and node.name in check_names()
    }
    return table(["check", "holds when"], [[f"`{name}`", said[name]] for name in check_names()])


def kills() -> dict[str, list[str]]:
    """The checks that catch each planted defect, as `harness kills` last found."""
    with KILLS.open(encoding="utf-8", newline="") as lines:
        return {row["defect"]: row["caught_by"].split() for row in csv.DictReader(lines)}


def defects() -> dict[str, str]:
    """What each planted defect does: the docstrings of the classes in `harness.defects`."""
    return {
        node.name: " ".join((ast.get_docstring(node) or "").split())
        for path in sorted((ROOT / "harness" / "defects").glob("*.py"))
        for node in parse(path).body
        if isinstance(node, ast.ClassDef)
    }


def only(check: str) -> str:
    """The planted defects that no other check catches."""
    caught, what = kills(), defects()
    rows = [[f"`{name}`", what[name]] for name in caught if caught[name] == [check]]
    seen = sum(check in by for by in caught.values())
    head = f"`{check}` catches {seen} of {len(caught)} planted defects"
    if not rows:
        return f"{head}. Each of them is caught by another check as well.\n"
    return f"{head}. These no other check catches:\n\n{table(['defect', 'what it does'], rows)}"


def kill_table() -> str:
    """Every planted defect beside the checks that catch it."""
    caught, what = kills(), defects()
    rows = [[f"`{name}`", what[name], ", ".join(by)] for name, by in caught.items()]
    return table(["defect", "what it does", "caught by"], rows)


def take_over(path: Path) -> None:
    """Write `kills.csv` from a kill table of `harness kills`.

    Left out: defects that are no subjects' (of the router, of a graph pass), since what judges
    them is no check.
    """
    lines = ["defect,caught_by\n"]
    for row in json.loads(path.read_text(encoding="utf-8")):
        caught_by = [check for check, *_ in row["checks"]]
        if set(caught_by) <= set(check_names()):
            lines.append(f"{row['name']},{' '.join(caught_by)}\n")
    KILLS.write_text("".join(lines), encoding="utf-8")


# --- subjects


@dataclasses.dataclass(frozen=True)
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
    for target, value in (pair for node in members for pair in _assigned(node)):
        held.setdefault(target, value)
    return Subject(
        name=name,
        kind=kind,
        schemes=frozenset(_value(held["schemes"])),
        package=str(_value(held["package"])) if "package" in held else "",
        suite=str(_value(held["suite"])) if "suite" in held else "",
        what=first_sentence(ast.get_docstring(lineage[0]) or ""),
    )


def _assigned(node: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of a class attribute; `a, b = 1, 2` is two."""
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        targets = [node.target]
    for target in targets:
        assert isinstance(node, ast.Assign | ast.AnnAssign)
        if isinstance(target, ast.Name) and node.value is not None:
            yield target.id, node.value
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            for each, value in zip(target.elts, node.value.elts, strict=True):
                if isinstance(each, ast.Name):
                    yield each.id, value


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
        names = [name for name, _ in _assigned(node)]
        if "OPTIONAL_MEMBERS" in names and isinstance(node, ast.AnnAssign):
            assert isinstance(node.value, ast.Tuple)
            rows = [_member(call) for call in node.value.elts if isinstance(call, ast.Call)]
            return table(["written", "of", "meaning"], rows)
    return before


def _member(call: ast.Call) -> list[str]:
    """form, of and meaning of one `OptionalMember`; `of` may be a name of the module."""
    constants = dict(
        pair for node in parse(ROOT / "harness" / "contract.py").body for pair in _assigned(node)
    )
    _, of, form, meaning = (
        ast.literal_eval(constants[arg.id] if isinstance(arg, ast.Name) else arg)
        for arg in call.args[:4]
    )
    return [f"`{form}`", of, meaning]


# --- results


def fields(kind: str) -> Callable[[str], str]:
    """A maker of a dataclass's table, which keeps what the page says of each field.

    A field of which the page says nothing yet takes what the class's docstring says of it.
    """

    def make(before: str) -> str:
        said = dict(re.findall(r"^\| `(\w+)` \| (?:\\\||[^|])* \| (.*?) \|$", before, re.M))
        held = _dataclass(kind)
        rows = [
            [
                f"`{f.name}`",
                f"`{f.type}`".replace("|", "\\|"),
                said.get(f.name) or _said(held, f.name),
            ]
            for f in dataclasses.fields(held)
        ]
        return table(["field", "type", "meaning"], rows)

    return make


def _said(held: type, field: str) -> str:
    """What a docstring says of a field: "name: meaning." or "name: meaning;"."""
    found = re.search(rf"\b{field}: (.+?)(?=[.;](?:\s|$))", " ".join((held.__doc__ or "").split()))
    return found[1] if found else ""


def _dataclass(kind: str) -> type:
    from harness.gate.verdict import Verdict
    from harness.results.folder import RunInfo
    from harness.results.record import Record

    return {c.__name__: c for c in (Record, RunInfo, Verdict)}[kind]


def statuses() -> str:
    """The statuses, and which of them turn the gate red."""
    from harness.results.finding import RED, Status

    path = ROOT / "harness" / "results" / "finding.py"
    said = dict(re.findall(r'^    [A-Z_]+ = "([\w-]+)"\s*# (.+)$', path.read_text("utf-8"), re.M))
    rows = [
        [f"`{s}`", said.get(s, "the check ran and holds"), "red" if s in RED else ""]
        for s in Status
    ]
    return table(["status", "meaning", "gate"], rows)


def baseline_columns() -> str:
    """The columns of the baseline files."""
    from harness.gate import baselines, claims

    rows = [
        ["`<scheme>.csv`", ", ".join(baselines.KEY), ", ".join(baselines.VALUES)],
        [f"`{claims.FILE}`", ", ".join(claims.KEY), ", ".join(claims.VALUES)],
    ]
    return table(["file", "key", "integers"], rows)


# --- cases and rooms


def models() -> str:
    """The tiny models."""
    from harness.cases.models import TINY

    rows = [
        [
            f"`{m.name}`",
            m.scheme,
            str(m.n_layers),
            f"chunk {m.chunk}" if m.chunk else str(m.window or "none"),
            str(m.sink or ""),
        ]
        for m in TINY.values()
    ]
    return table(["model", "scheme", "layers", "window", "sink"], rows)


def rooms() -> str:
    """The rooms in their import order, with the first sentence of each."""
    path = ROOT / "suites" / "meta" / "test_architecture.py"
    order = next(
        ast.literal_eval(node.value)
        for node in parse(path).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    )
    rows = []
    for room in order:
        source = ROOT / "harness" / room
        file = source / "__init__.py" if source.is_dir() else source.with_suffix(".py")
        said = first_sentence(ast.get_docstring(parse(file)) or "")
        rows.append([f"`harness/{room}{'/' if source.is_dir() else '.py'}`", said])
    return table(["room", "what is in it"], rows)


def commands() -> str:
    """Every command, what it does, and its options."""
    import typer

    from harness.cli.main import app

    return "\n".join(_commands("harness", typer.main.get_command(app)))


def _commands(name: str, command: Any) -> Iterator[str]:
    for part, sub in sorted(getattr(command, "commands", {}).items()):
        yield from _command(f"{name} {part}", sub)


def _command(name: str, command: Any) -> Iterator[str]:
    rows = [
        [" ".join(f"`{o}`" for o in _spelt(p)), str(getattr(p, "help", None) or ""), _default(p)]
        for p in command.params
        if p.name != "help"
    ]
    paragraphs = [" ".join(part.split()) for part in (command.help or "").split("\n\n")]
    listed = table(["argument or option", "meaning", "default"], rows) if rows else ""
    yield f"### {name}\n\n" + "\n\n".join(paragraphs) + f"\n\n{listed}"
    yield from _commands(name, command)


def _spelt(parameter: Any) -> list[str]:
    """`--option`, or `ARGUMENT`."""
    is_option = parameter.param_type_name == "option"
    return parameter.opts if is_option else [parameter.name.upper()]


def _default(parameter: Any) -> str:
    value = parameter.default
    shown = parameter.required or value is None or value in (False, "", 0) or not str(value)
    return "required" if parameter.required else "" if shown or value == [] else f"`{value}`"


def reasons() -> str:
    """Why the router routes a call or passes it on."""
    path = ROOT / "harness" / "schemes" / "band" / "decisions.py"
    cls = next(n for n in parse(path).body if isinstance(n, ast.ClassDef) and n.name == "Reason")
    said = [value.value for node in cls.body for _, value in _assigned(node)]  # type: ignore[attr-defined]
    rows = [[text, "routed" if i == 0 else "passed on"] for i, text in enumerate(said)]
    return table(["reason", "decision"], rows)


MAKERS: dict[str, Callable[[str], str]] = {
    "checks": lambda _: checks(),
    "subjects": lambda _: subject_table(),
    "subjects in detail": lambda _: subject_details(),
    "kill table": lambda _: kill_table(),
    "statuses": lambda _: statuses(),
    "baseline columns": lambda _: baseline_columns(),
    "models": lambda _: models(),
    "rooms": lambda _: rooms(),
    "routing reasons": lambda _: reasons(),
    "commands": lambda _: commands(),
    "optional members": optional_members,
    "example": lambda _: f"\n```python\n{EXAMPLE.read_text('utf-8')}```\n\n",
    **{f"fields of {k}": fields(k) for k in ("Record", "RunInfo", "Verdict")},
    **{f"only {name}": lambda _, name=name: only(name) for name in check_names()},
}


def generate(text: str) -> str:
    """A page with its generated parts made anew.  Raises KeyError for a part that has no maker."""

    def made(match: re.Match[str]) -> str:
        if match["name"].startswith(OUTPUT):
            return match[0]
        return f"{match[1]}{MAKERS[match['name']](match['body'])}{match[4]}"

    return _PART.sub(made, text)


# --- what commands print: these run checks, so they need PyTorch and some seconds

OUTPUT = "output of "
EXAMPLE = ROOT / "examples" / "my_cache.py"
_SHORT = ("window + 1", "window + 2")  # what the page on reading a failure changes
_ONE = ("--case", "mistral-w9/chunk-4/float32/b1", "--check", "visibility")
#: By name: (text in the example, text in its place), and the command that is run beside it.
OUTPUTS: dict[str, tuple[tuple[str, str], tuple[str, ...]]] = {
    "the example": (("", ""), ("check", "examples/my_cache.py:MyCache", "--model", "mistral-w9")),
    "the example, one key short": (
        _SHORT,
        ("check", "examples/my_cache.py:MyCache", "--model", "mistral-w9"),
    ),
    "one check": (_SHORT, ("check", "examples/my_cache.py:MyCache", *_ONE)),
    "kv": (("", ""), ("kv", "gemma-3-27b", "--context", "131072")),
}


def output(name: str) -> str:
    """What a command prints beside a copy of the example, with a change made to it."""
    (old, new), arguments = OUTPUTS[name]
    text = EXAMPLE.read_text(encoding="utf-8")
    assert old in text, f"{EXAMPLE.name} holds no {old!r}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for terminal in ("COLUMNS", "FORCE_COLOR"):
        environment.pop(terminal, None)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / EXAMPLE.relative_to(ROOT)
        copy.parent.mkdir()
        copy.write_text(text.replace(old, new), encoding="utf-8")
        ran = subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode in (0, 1), ran.stderr
    lines = [line.rstrip() for line in ran.stdout.splitlines()]
    return "\n".join(lines).strip("\n") + "\n"


def shown(text: str) -> dict[str, str]:
    """The outputs that a page shows, by name."""
    return {
        match["name"].removeprefix(OUTPUT): match["body"].strip().strip("`").strip("\n") + "\n"
        for match in _PART.finditer(text)
        if match["name"].startswith(OUTPUT)
    }


def write_outputs(text: str) -> str:
    """A page with the outputs that it shows made anew."""

    def made(match: re.Match[str]) -> str:
        if not match["name"].startswith(OUTPUT):
            return match[0]
        said = output(match["name"].removeprefix(OUTPUT))
        return f"{match[1]}\n```\n{said}```\n\n{match[4]}"

    return _PART.sub(made, text)


def main() -> int:
    """Write, or check, every page; the exit status."""
    parser = argparse.ArgumentParser(description="Write the generated parts of the documentation.")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if out of date")
    parser.add_argument("--outputs", action="store_true", help="run the examples again, too")
    parser.add_argument("--kills", type=Path, metavar="FILE", help="take over a kill table")
    given = parser.parse_args()
    if given.kills:
        take_over(given.kills)
    stale = []
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = generate(write_outputs(before) if given.outputs else before)
        if after != before:
            stale.append(path.relative_to(ROOT))
            if not given.check:
                path.write_text(after, encoding="utf-8")
    for path in stale:
        print(f"{path}: {'out of date' if given.check else 'written'}")
    return int(given.check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
