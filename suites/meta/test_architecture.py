"""The house rule of imports: a room for each step, each importing only the rooms before it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HARNESS = ROOT / "harness"

#: A room may import those before it, and itself.
ORDER = (
    "law",
    "contract",
    "cases",
    "reference",
    "memory",
    "results",
    "export",
    "checks",
    "gate",
    "run",
    "mil",
    "estimate",
    "runtimes",
    "schemes",
    "subjects",
    "defects",
    "fuzz",
    "bench",
    "report",
    "cover",
    "cli",
)
#: Files that may stand loose in harness/: the public contract, the law, and Python's own.
LOOSE = {"__init__", "__main__", "contract", "law"}


def _modules() -> list[Path]:
    return sorted(HARNESS.rglob("*.py"))


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, module) of every import of this package, those for type checking apart."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness"):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "harness":
                    yield node.lineno, alias.name


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_its_place_in_the_order() -> None:
    rooms = {p.stem for p in HARNESS.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert rooms | (LOOSE - {"__init__", "__main__"}) == set(ORDER)


def test_no_module_stands_loose() -> None:
    assert {p.stem for p in HARNESS.glob("*.py")} == LOOSE


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_imports_run_one_way(path: Path) -> None:
    room = _room(_name(path))
    if not room or room == "__main__":
        return  # the package itself imports nothing but by name, `python -m harness` the command
    allowed = {*ORDER[: ORDER.index(room) + 1], "__version__"}
    up = [f"line {line}: {name}" for line, name in _imports(path) if _room(name) not in allowed]
    assert not up, f"{_name(path)} ({room}) imports from rooms behind it: {up}"


def test_the_core_imports_no_subject_and_no_framework_but_torch() -> None:
    core = ORDER[: ORDER.index("run") + 1]
    frameworks = {"transformers", "executorch", "coremltools", "mlx", "mlx_lm", "xllamacpp"}
    for path in _modules():
        if _room(_name(path)) in core:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {
                name.partition(".")[0]
                for node in ast.walk(tree)
                for name in (
                    [a.name for a in node.names]
                    if isinstance(node, ast.Import)
                    else [node.module or ""]
                    if isinstance(node, ast.ImportFrom)
                    else []
                )
            }
            assert not names & frameworks, f"{path} imports {names & frameworks}"


def test_there_is_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    known = {_name(path) for path in _modules()}
    for path in _modules():
        found = set()
        for _, name in _imports(path):
            target = name if name in known else name.rpartition(".")[0]
            if target in known and target != _name(path):
                found.add(target)
        graph[_name(path)] = found
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path, module))}"
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_what_strangers_import_keeps_its_name() -> None:
    from harness import __version__
    from harness.cases import DTYPES, Case, parse
    from harness.contract import CacheShape, Unsupported
    from harness.law import Layer
    from harness.schemes.band_routing import routing
    from harness.schemes.static_cache import StaticDecoder

    assert all((__version__, DTYPES, Case, parse, CacheShape, Unsupported, Layer, routing))
    assert StaticDecoder
