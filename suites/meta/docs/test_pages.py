"""The documentation: links and anchors resolve, code runs, paths exist, tables are current."""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path

import pytest
from doc_pages import DOCS, PAGES, ROOT, anchors, blocks, generator, inline, links, name_of, prose

generate = generator()
_PAGE = pytest.mark.parametrize("path", PAGES, ids=name_of)


def _python() -> list[tuple[str, str]]:
    return [
        (f"{name_of(path)}-{number}", block.body)
        for path in PAGES
        for number, block in enumerate(blocks(path.read_text(encoding="utf-8")))
        if block.info.startswith("python")
    ]


@_PAGE
def test_links_and_anchors_resolve(path: Path) -> None:
    for target in links(path.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        page = path if not file else (path.parent / file).resolve()
        assert page.exists(), f"{name_of(path)} links to {target}, which does not exist"
        if anchor:
            known = anchors(page.read_text(encoding="utf-8"))
            assert anchor in known, f"{name_of(path)}: no heading #{anchor} in {name_of(page)}"


def test_a_dead_link_and_a_lost_anchor_would_be_seen() -> None:
    text = "# One `two` three\n\n[a](b.md#c) ![d](e.svg)\n\n```\n[no](link)\n```\n`[x](y)`\n"
    assert links(text) == ["b.md#c", "e.svg"]
    assert anchors(text) == {"one-two-three"}


@_PAGE
def test_paths_that_are_named_exist(path: Path) -> None:
    named = [
        code
        for code in inline(path.read_text(encoding="utf-8"))
        if re.fullmatch(r"(harness|suites|docs|examples|reports/baselines|\.github)/[\w./-]*", code)
    ]
    gone = [code for code in named if not (ROOT / code).exists()]
    assert not gone, f"{name_of(path)} names {gone}"


@pytest.mark.parametrize(("name", "code"), _python(), ids=[name for name, _ in _python()])
def test_python_blocks_run(name: str, code: str) -> None:
    names: dict[str, object] = {"__name__": "page", "__builtins__": builtins}
    before = len(names)
    exec(compile(code, name, "exec"), names)
    assert len(names) > before, f"{name} defines nothing: a reader can do nothing with it"


def test_there_are_python_blocks() -> None:
    assert len(_python()) >= 4


@pytest.mark.parametrize("path", generate.PAGES, ids=name_of)
def test_generated_parts_are_current(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert generate.generate(text) == text, f"{name_of(path)}: run python docs/generate.py"


def test_a_page_that_is_out_of_date_is_seen() -> None:
    page = "<!-- generated: statuses -->\n| old |\n<!-- end -->\n"
    made = generate.generate(page)
    assert "| `missing` |" in made
    assert "| old |" not in made
    with pytest.raises(KeyError):
        generate.generate(page.replace("statuses", "nothing"))


def test_every_maker_is_used_and_every_part_is_closed() -> None:
    texts = [path.read_text(encoding="utf-8") for path in generate.PAGES]
    used = {m for text in texts for m in re.findall(r"<!-- generated: (.+?) -->", text)}
    outputs = {generate.OUTPUT + name for name in generate.outputs.OUTPUTS} - {
        "output of the example"
    }
    assert used == set(generate.MAKERS) | outputs
    for text in texts:
        assert text.count("<!-- generated: ") == text.count("<!-- end -->")


def test_every_field_of_the_results_has_a_meaning() -> None:
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    empty = re.findall(r"^\| `(\w+)` \|.*\|\s+\|$", text, re.M)
    assert not empty, f"docs/results.md does not say what {empty} mean"


_DOC = """What it is.

run: its id; reach: how far it goes,
so that it is known.  More.
"""


def test_what_is_written_of_a_field_is_kept() -> None:
    maker = generate.MAKERS["fields of Record"]
    before = "| `batch` | `int \\| None` | rows of the case |\n| `gone` | `int` | no more |\n"
    after = maker(before)
    assert "| `batch` | `int \\| None` | rows of the case |" in after
    assert "gone" not in after
    assert maker(after) == after


def test_a_new_field_takes_what_the_class_says() -> None:
    assert "so that it is known" in generate.results._said(
        type("A", (), {"__doc__": _DOC}), "reach"
    )
    assert generate.results._said(type("A", (), {"__doc__": _DOC}), "other") == ""


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = re.findall(r"^ +- (?:\w+: )?([\w-]+\.md)$", text, re.M)
    assert sorted(listed) == sorted(path.name for path in DOCS.glob("*.md"))


def test_every_reason_to_be_red_is_explained() -> None:
    source = (ROOT / "harness" / "gate" / "verdict.py").read_text(encoding="utf-8")
    said = re.compile(
        r"\b(fails?|broke|missing|pass|passed|drifted|stale|failed|come back|did not run"
        r"|not whole|did not end|interrupted|internal error|misused|ended with)\b"
    )
    # What a function that collects reasons says; "check fails" and "checks fail" are one reason.
    parts = {
        node.value.strip()
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.FunctionDef)
        and (function.name == "judge" or "reasons" in function.name or "required" in function.name)
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value != ast.get_docstring(function, clean=False) and " " in node.value.strip()
    }
    reasons = sorted(part for part in parts if said.search(part))
    assert len(reasons) >= 10, reasons
    page = " ".join(prose((DOCS / "gate.md").read_text(encoding="utf-8")).split())
    singular = {
        "check fails": "checks fail",
        "check broke": "checks broke",
        "record is missing": "records are missing",
        "known failure passes": "known failures pass",
        "integer drifted": "integers drifted",
        "claim drifted": "claims drifted",
        "known failure is stale": "known failures are stale",
        "other test failed": "other tests failed",
    }
    unexplained = [r for r in reasons if singular.get(r, r) not in page]
    assert not unexplained, f"docs/gate.md does not explain {unexplained}"


def test_every_check_says_what_it_proves_and_what_it_cannot_see() -> None:
    text = (DOCS / "checks.md").read_text(encoding="utf-8")
    for name in generate.checks.check_names():
        section = re.search(rf"^## {name}\n(.*?)(?=^## )", text, re.M | re.S)
        assert section is not None, f"docs/checks.md has no section {name}"
        for part in ("**Proves**", "**Cannot see**", f"<!-- generated: only {name} -->"):
            assert part in section[1], f"docs/checks.md, {name}: no {part}"


#: Words of the code that mean something else elsewhere.
WORDS = """
    turn wrap claim stated whole absent outside drift doubt blind margin neighbour step behind
    case subject kind cause
"""


@pytest.mark.parametrize("word", WORDS.split())
def test_private_words_are_in_the_glossary(word: str) -> None:
    text = (DOCS / "glossary.md").read_text(encoding="utf-8")
    assert re.search(rf"^{word}\n:   \S", text, re.M), f"docs/glossary.md does not explain {word}"
