"""The pages of the documentation as the tests read them: headings, links, code, commands."""

from __future__ import annotations

import importlib.util
import re
import sys
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted(DOCS.glob("*.md")),
)

_FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n]*)\n(?P<body>.*?)^ *```$", re.M | re.S)
_INLINE = re.compile(r"`([^`\n]+(?:\n[^`\n]+)?)`")


def generator() -> ModuleType:
    """`docs/generate.py`, which is a script and not in a package."""
    if "docs_generate" not in sys.modules:
        sys.path.append(str(DOCS))  # a script can import what lies next to it
        spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["docs_generate"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["docs_generate"]


@dataclass(frozen=True)
class Block:
    """A fenced block.  info: the text after the opening fence."""

    info: str
    body: str


def name_of(path: Path) -> str:
    """A page's path within the repository."""
    return str(path.relative_to(ROOT))


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(m["info"].strip(), m["body"]) for m in _FENCE.finditer(text)]


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", text)


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as Python-Markdown names them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(text), re.M):
        plain = re.sub(r"[`*]|\[|\]\([^)]*\)", "", heading)
        folded = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
        words = re.sub(r"[^\w\s-]", "", folded).strip().lower()
        found.add(re.sub(r"[-\s]+", "-", words))
    return found


def links(text: str) -> list[str]:
    """The targets of a page's links and images."""
    return re.findall(r"\]\(([^)\s]+)\)", _INLINE.sub("", prose(text)))


def inline(text: str) -> list[str]:
    """Inline code, each on one line."""
    return [" ".join(code.split()) for code in _INLINE.findall(prose(text))]


def code_lines(text: str) -> Iterator[str]:
    """Lines of indented code, and of fenced blocks of the shell."""
    for line in prose(text).splitlines():
        if line.startswith("    "):
            yield line.strip()
    for block in blocks(text):
        if block.info in {"sh", "bash", "shell"}:
            yield from (line.strip() for line in block.body.splitlines())
