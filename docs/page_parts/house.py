"""Models, rooms, commands, and the router's reasons."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from page_parts.source import ROOT, assigned, first_sentence, parse, table


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
    said = [value.value for node in cls.body for _, value in assigned(node)]  # type: ignore[attr-defined]
    rows = [[text, "routed" if i == 0 else "passed on"] for i, text in enumerate(said)]
    return table(["reason", "decision"], rows)
