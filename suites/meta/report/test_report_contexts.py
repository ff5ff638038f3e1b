"""Bytes against the context on the page: every point is the estimate, every sum adds up."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from harness.estimate import model_id
from harness.estimate.profiles import PROFILES, Ideal, LlamaCpp, Request, executorch
from harness.report import contexts, html


@pytest.fixture(scope="module")
def charts() -> list[contexts.Chart]:
    return contexts.charts()


def test_one_chart_for_each_scheme_that_is_bounded(charts: list[contexts.Chart]) -> None:
    assert [c.scheme for c in charts] == ["interleaved", "uniform", "chunked"]


def test_every_runtime_has_its_line(charts: list[contexts.Chart]) -> None:
    for chart in charts:
        names = [name for line in chart.lines for name in line.names]
        assert len(names) == len(set(names))
        assert set(PROFILES) - set(names) <= {"heuristic", "executorch.sink"}
    uniform = charts[1]
    assert any("executorch.sink" in line.names for line in uniform.lines)


def test_lines_are_the_estimates(charts: list[contexts.Chart]) -> None:
    """At the longest context the bytes are equal; elsewhere the heights of points are checked."""
    for chart in charts:
        geometry = model_id.read(chart.model)
        for line in chart.lines:
            for name in line.names:
                assert line.nbytes == PROFILES[name]().total(geometry, Request(131_072))
        sizes = contexts.bytes_by_runtime(geometry)
        assert sizes["llama.cpp"] == [
            LlamaCpp().total(geometry, Request(c)) for c in contexts.CONTEXTS
        ]
        shown = {name: heights(line) for line in chart.lines for name in line.names}
        for name, held in sizes.items():
            assert len(shown[name]) == len([n for n in held if n])
            assert all(a >= b for a, b in itertools.pairwise(shown[name])), "bytes never fall"
        dense, ideal = shown["dense"], shown["ideal"]
        assert all(a <= b for a, b in zip(dense, ideal, strict=True)), "more bytes stand higher"


def heights(line: contexts.Line) -> list[float]:
    return [float(y) for y in re.findall(r"\d+ (\d+)", line.path)]


def test_the_arithmetic_adds_up(charts: list[contexts.Chart]) -> None:
    for chart in charts:
        name, text, total = re.sub(r"[, ]|slots|bytes", "", chart.arithmetic).split("=")
        terms = (re.findall(r"\d+", term) for term in text.split("+"))
        added = sum(int(n) * int(slots) * int(nbytes) for n, slots, nbytes in terms)
        assert name == "ideal"
        ideal = Ideal().total(model_id.read(chart.model), Request(131_072))
        assert added == int(total) == ideal
        assert chart.command == f"harness kv {chart.model} --context 131072"


def test_a_runtime_looks_the_same_in_every_chart(charts: list[contexts.Chart]) -> None:
    looks: dict[str, set[str]] = {}
    css = (Path(contexts.__file__).parent / "style.css").read_text(encoding="utf-8")
    for chart in charts:
        shown = [line.look for line in chart.lines]
        assert len(shown) == len(set(shown)), "no two lines of a chart look alike"
        for line in chart.lines:
            looks.setdefault(line.names[0], set()).add(line.look)
            assert f".plot .{line.look} " in css
    assert all(len(held) == 1 for held in looks.values())


def test_what_no_runtime_holds_is_no_point() -> None:
    geometry = model_id.read("mistral-7b-v0.1")
    held: list[int | None] = [None, *([2**20] * (len(contexts.CONTEXTS) - 1))]
    (line,) = contexts._lines({"vllm": held}, contexts._Scale(10.0, 30.0))
    assert len(heights(line)) == len(held) - 1
    assert executorch.Sink.name in contexts.bytes_by_runtime(geometry)
    assert executorch.Sink.name not in contexts.bytes_by_runtime(model_id.read("gemma3-27b"))


def test_the_charts_are_small_drawings_without_colours_of_their_own(
    charts: list[contexts.Chart],
) -> None:
    """Colours come from the style sheet, so that charts are readable in light and dark."""
    module = html._environment().get_template("figures.html.j2").make_module()
    for chart in charts:
        text = str(module.contexts(chart))
        drawing = text[text.index('<svg class="plot" role') : text.index("</svg>") + 6]
        root = ElementTree.fromstring(drawing)
        assert len(text) < 6_000
        assert not re.search(r"#[0-9a-f]{3,6}|style=|\bid=", drawing)
        assert root.get("aria-label", "").startswith(f"Cache bytes of {chart.model}")
        for node in root.iter("text"):
            assert 0 <= float(node.get("x", "")) <= contexts.WIDTH
            assert 0 <= float(node.get("y", "")) <= contexts.HEIGHT
        for line in chart.lines:
            assert all(0 <= y <= contexts.HEIGHT - contexts.BOTTOM for y in heights(line))
