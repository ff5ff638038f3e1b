"""The report's section of KV bytes: every model, context and estimator, to the byte."""

from __future__ import annotations

import pytest

from harness.cases.models import PUBLISHED
from harness.estimate import model_id, table
from harness.estimate.profiles import LlamaCpp, Request
from harness.report import html, kv


@pytest.fixture(scope="module")
def sections() -> list[kv.Section]:
    return kv.sections()


def test_every_model_and_context(sections: list[kv.Section]) -> None:
    assert [section.context for section in sections] == [8192, 32_768, 131_072]
    for section in sections:
        assert [name for name, _ in section.rows] == [model.row for model in model_id.RELEASED]
        assert {name for name, _ in section.rows} == set(PUBLISHED)
        assert all(len(cells) == len(section.columns) for _, cells in section.rows)


def test_cells_are_the_estimates(sections: list[kv.Section]) -> None:
    for section in sections:
        at = [column.name for column in section.columns].index("llama.cpp")
        for name, cells in section.rows:
            true = LlamaCpp().total(model_id.read(name), Request(section.context))
            assert cells[at].nbytes == true
            assert cells[at].shown == f"{true / 2**20:,.1f}"
            assert cells[at].title == f"{true:,}"


def test_estimators_show_their_error(sections: list[kv.Section]) -> None:
    last = sections[-1]
    row = dict(last.rows)["gemma3-27b"]
    shown = {c.name.split()[0]: cell for c, cell in zip(last.columns, row, strict=True)}
    assert shown["heuristic"].error == "-81%"
    assert (shown["whichllm"].nbytes, shown["whichllm"].error) == (2_196_504_575, "-81%")
    assert shown["hf-mem"].error == "+484%"
    assert shown["llama.cpp"].error == ""
    assert shown["executorch.sink"].title == "every layer becomes a ring: give its window"


def test_a_peer_that_is_absent_keeps_its_column(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        table,
        "peer_rows",
        lambda *_: [table.Row("whichllm", "", table.PEER, None, note="not installed: pip install")],
    )
    (section,) = kv.sections((8192,))
    assert section.columns[-1].name == "whichllm"
    cell = section.rows[0][1][-1]
    assert (cell.nbytes, cell.shown, cell.title) == (None, "", "not installed: pip install")


def test_the_section_is_on_the_page(sections: list[kv.Section]) -> None:
    template = html._environment().get_template("template.html.j2")
    source = template.environment.loader.get_source(template.environment, template.name)[0]
    part = source[source.index('<section aria-labelledby="kv">') :]
    part = part[: part.index("</section>")]
    page = html._environment().from_string(part).render(kv=sections, charts=[])
    assert page.count("<table") == 3
    assert page.count('<th scope="row">') == 3 * len(PUBLISHED)
    assert '<td title="11,391,729,664">10,864.0<' in page
