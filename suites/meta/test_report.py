"""The HTML report and the picture of the matrix, from frames that hold every status."""

import math
import re
import time
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from gate_data import ENTRY, entries, record

from harness.findings import RED, Finding, Status
from harness.gate.baselines import Baselines, key_of
from harness.gate.folder import RunInfo
from harness.gate.records import finish, to_frame
from harness.gate.verdict import judge
from harness.law import Layer
from harness.models import TINY
from harness.report import errorplot, failures, html, numbers, picture, status, visible
from harness.report.matrix import tables

HOSTILE = "<script>alert('x')</script> & \"quoted\" </details>"
CLOSED_BY = {"td": ("td",), "th": ("td",), "tr": ("td", "tr")}  # by a start tag
ENDED_BY = {"tr": ("td",), "tbody": ("td", "tr")}  # by an end tag
VOID = {"meta", "link", "input", "br", "hr", "img", "wbr"}


class Page(HTMLParser):
    """What the tests ask of a page; fails on a tag that is closed out of turn or not at all."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.text, self.open, self.tags, self.words = text, [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.end_implied(CLOSED_BY.get(tag, ()))
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def end_implied(self, tags):
        """Close cells and rows whose end tags HTML lets a page leave out."""
        while self.open and self.open[-1] in tags:
            self.open.pop()

    def handle_endtag(self, tag):
        self.end_implied(ENDED_BY.get(tag, ()))
        assert self.open.pop() == tag, f"</{tag}> closes another element, {self.getpos()}"

    def handle_data(self, data):
        self.words.append(data)

    def attributes(self, name, tag=None):
        """Values of an attribute, of every element or of those of a tag."""
        return [a[name] for t, a in self.tags if name in a and tag in (None, t)]

    @property
    def prose(self):
        """The text of the page, white space made one."""
        return " ".join(" ".join(self.words).split())


def wrong_window(check="visibility"):
    """What a window that is one key too wide leaves in a finding."""
    finding = Finding(check)
    finding.compare_sets(Layer(window=8).mask(0, 20, 20), Layer(window=9).mask(0, 20, 20))
    return finding


def wrong_values():
    finding = Finding("values", figure=0.7, bound=1e-5, margin=812.5)
    finding.errors = [0.02] * 9 + [3e4, math.inf, math.nan, 0.0]
    return finding.fail("logits: 3 of 13 rows off", 9)


def every_status():
    """Records of each status, two schemes, one subject that is not installed."""
    out = [
        record(item="1", margin=57.25, bound=2e-5, figure=1e-6, cache_bytes=4608, seconds=2.5),
        record(item="2", check="visibility", case="mistral/decode-3wraps/float32/b1"),
        record(item="3", check="rewind", status="not-claimed", message="has no rewind"),
        record(item="4", subject="gone", status="not-installed", check="load", case="",
               scheme="", message="executorch is not installed"),
        record(item="5", check="purity", status="missing", message="no record came back",
               case="gemma3/chunk-w+1/float32/b3", scheme="interleaved", seconds=None),
        record(item="6", check="reset", status="error", exception="RuntimeError",
               message=f"RuntimeError: {HOSTILE}", reproduce="harness check ours --case six"),
        record(item="7", status="fixed", known="B9", message="known failure B9 passes"),
        record(item="8", subject="elsewhere", check="refusal", status="not-installed",
               message="coremltools is not installed"),
    ]  # fmt: skip
    for i, finding in enumerate((wrong_window(), wrong_window(), wrong_values())):
        broken = record(
            item=f"broken{i}", subject="broken", check=finding.check, model="gemma3",
            case=f"gemma3/c{i}/float32/b1", scheme="interleaved",
            reproduce=f"harness check broken --case c{i}",
        )  # fmt: skip
        out.append(finish(broken, finding, 0.25))
    known = record(item="known", check="visibility", known="B1", message="", seconds=0.5)
    return [*out, as_known(finish(known, wrong_window(), 0.5))]


def as_known(r):
    r.status, r.known = "known", "B1"
    return r


@pytest.fixture(scope="module")
def records():
    return every_status()


@pytest.fixture(scope="module")
def frame(records):
    return to_frame(records)


@pytest.fixture(scope="module")
def verdict(records, frame, tmp_path_factory):
    """Red for every reason there is: a drifted row and a stale entry beside the records."""
    stale = ENTRY.replace("B1", "B7").replace("mistral/chunk-*", "nowhere/*")
    folder = tmp_path_factory.mktemp("known")
    known = [*entries(folder), *entries(folder, stale)]
    rows = {"uniform": {key_of(records[0]): {"cache_bytes": 4096}}}
    run = RunInfo(run="r1", whole=True, exit_status=1, outside=["suites/meta/test_x.py::test_y"])
    return judge(frame, Baselines(rows), known, run)


@pytest.fixture(scope="module")
def page(frame, verdict, tmp_path_factory):
    out = html.build(frame, verdict, tmp_path_factory.mktemp("report"))
    assert out.name == "index.html"
    return Page(out.read_text(encoding="utf-8"))


def counted(labels):
    """Records by status, from cells' labels such as "ours, values: 2 fail, 1 pass"."""
    words = {look.word: name for name, look in status.LOOKS.items()}
    out = Counter()
    for label in labels:
        for part in label.split(": ", 1)[1].split(", "):
            n, word = part.split(" ", 1)
            out[words[word]] += int(n)
    return out


def test_the_test_has_every_status(records):
    assert {r.status for r in records} == {str(s) for s in Status}


def test_ids_are_unique_and_links_lead_somewhere(page):
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    inside = [h[1:] for h in page.attributes("href") if h.startswith("#")]
    inside += page.attributes("data-cell") + page.attributes("aria-labelledby")
    assert inside
    assert set(inside) <= set(ids)


def test_nothing_is_loaded_from_elsewhere(page):
    """Anchors and namespaces may name other places; nothing that a browser fetches may."""
    assert not page.attributes("src")
    fetched = [a["href"] for tag, a in page.tags if "href" in a and tag != "a"]
    assert all(h.startswith(("#", "data:")) for h in fetched)
    assert not re.search(r"url\(|@import", page.text)
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(", page.text)
    (policy,) = (a["content"] for tag, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def test_every_red_case_can_be_reproduced(page, records):
    red = [r for r in records if r.status in RED]
    assert len(red) > 4
    for r in red:
        assert r.reproduce in page.prose


def test_counts_are_those_of_the_frame(page, frame, records):
    counts = Counter(frame["status"])
    held = Counter(r.status for r in records if r.case)
    assert counted(page.attributes("aria-label", "a")) == held
    assert f"{len(frame)} records =" in page.prose
    for name, n in counts.items():
        assert f"{n} {status.LOOKS[name].word}" in page.prose
    assert len([a for tag, a in page.tags if tag == "tr" and "data-s" in a]) == sum(held.values())


def test_what_did_not_run_never_looks_like_a_pass(page):
    cells = {c for tag, a in page.tags if tag == "td" and (c := a.get("class")) in status.LOOKS}
    assert {"not-claimed", "not-installed"} <= cells
    assert status.lead({"pass": 0, "not-claimed": 3}) == "not-claimed"
    assert status.lead({"not-installed": 3}) == "not-installed"
    assert "executorch is not installed" in page.prose


def test_red_comes_first(page, verdict):
    prose = page.prose
    at = [prose.index(reason) for reason in verdict.reasons]
    assert max(at) < prose.index("Subject by check, per scheme")
    titles = ["What broke", "Known failures", "Margins", "Slowest cases", "Environment"]
    places = [page.text.index(f">{title}</h2>") for title in titles]
    assert places == sorted(places)


def test_drift_and_stale_entries_and_other_tests_are_named(page):
    assert "4,096 4,608 +512" in page.prose
    assert "B7 matches nothing that ran" in page.prose
    assert "suites/meta/test_x.py::test_y" in page.prose


def test_messages_are_escaped(page):
    assert HOSTILE not in page.text
    assert "RuntimeError: <script>alert('x')</script>" in page.prose
    assert [tag for tag, _ in page.tags].count("script") == 1


def test_equal_failures_are_drawn_once(page):
    """Two broken cases and a known failure have the same visible sets."""
    labels = page.attributes("aria-label", "svg")
    expected = [label for label in labels if label.startswith("Expected by the law")]
    got = [label for label in labels if label.startswith("Recovered from the outputs")]
    assert len(expected) == len(got) == 1
    assert "query 8 should see keys 1–8;" in expected[0]
    assert "query 8 sees keys 0–8;" in got[0]
    assert "equals the one further up" in page.prose
    assert "1 more case of this kind" in page.prose


def test_known_failures_have_cause_and_link(page):
    assert "the mask is made before the update" in page.prose
    assert "torch ==2.13.0" in page.prose
    assert "https://example.org/issues/1" in page.attributes("href", "a")


def test_margins_slowest_and_environment(page):
    assert "values 57.2 2e-05 ours" in page.prose
    assert "2.50 ours" in page.prose
    assert "torch 2.13.0+cpu" in page.prose


def test_a_verdict_of_another_run_is_refused(verdict, tmp_path):
    with pytest.raises(ValueError, match="different runs"):
        html.build(to_frame([record()]), verdict, tmp_path)


def test_a_green_run(tmp_path):
    frame = to_frame([record()])
    verdict = judge(frame, Baselines(), [], RunInfo(run="r1", exit_status=0))
    page = Page(html.build(frame, verdict, tmp_path / "green.html").read_text(encoding="utf-8"))
    assert "<title>Green: attention conformance</title>" in page.text
    assert "broken" not in page.attributes("id")
    assert "1 record = 1 pass" in page.prose


def two_thousand(outcome):
    """2,000 records; outcome(i) gives the findings."""
    models, checks = list(TINY), ("visibility", "values", "reset", "purity", "cache_bytes")
    out = []
    for i in range(2000):
        model, check = models[i % len(models)], checks[i % len(checks)]
        case = f"{model}/prefill-by-5-then-decode-{i}/float32/b1"
        made = record(
            item=str(i), subject=f"executorch.static.{i % 12}", check=check, case=case, model=model,
            scheme=TINY[model].scheme, reproduce=f"harness check s --case {case} --check {check}",
        )  # fmt: skip
        out.append(finish(made, outcome(i, check), 0.1))
    return out


def mixed(i, check):
    """One in ten fails, each in a way of its own."""
    finding = Finding(check, figure=1.23e-6, bound=2.34e-5, margin=123.4)
    if i % 10:
        return finding
    finding.errors = [1e-3 * ((i * p) % 97) ** 2 for p in range(51)]
    shift = Layer(window=4 + i // 10 % 9)
    finding.compare_sets(Layer(window=8).mask(0, 40, 40), shift.mask(0, 40, 40))
    return finding.fail(f"{'abcdefghij'[i // 10 % 10] * 3}: rows off, first {i}", i)


def all_fail(i, check):
    return mixed(10 * i, check)


@pytest.mark.parametrize("outcome", [mixed, all_fail])
def test_two_thousand_cases_are_quick_and_small(outcome, tmp_path):
    frame = to_frame(two_thousand(outcome))
    verdict = judge(frame, Baselines(), [], RunInfo(run="r1", exit_status=1))
    html.build(to_frame([]), judge(to_frame([]), Baselines(), [], RunInfo(run="r")), tmp_path)
    began = time.process_time()
    out = html.build(frame, verdict, tmp_path)
    assert time.process_time() - began < 3
    assert out.stat().st_size < 1_000_000
    text = out.read_text(encoding="utf-8")
    assert all(r.reproduce in text for r in verdict.broken)


def test_kinds_of_cells():
    row = visible.Row(5, frozenset({3, 4, 5}), frozenset({2, 4, 5, 7}))
    assert [row.kind(k) for k in range(8)] == [
        "",
        "",
        "extra",
        "lost",
        "seen",
        "seen",
        "",
        "future",
    ]
    drawing = visible.draw([(5, [3, 4, 5], [2, 4, 5, 7])])
    assert {(kind, letter) for *_, kind, letter in drawing.panels[1].letters} == {
        ("extra", "+"),
        ("lost", "−"),
        ("future", "F"),
    }
    assert set(drawing.panels[0].paths) == {"seen"}


def test_a_far_sink_is_folded():
    near, far = [0, *range(993, 1001)], [0, *range(992, 1001)]
    drawing = visible.draw([(1000, near, far)])
    assert drawing.width < 40 * visible.CELL
    assert "…" in [text for _, text in drawing.keys]
    assert "keys 0, 992–1000" in drawing.panels[1].label


def test_errors_that_are_no_numbers_are_over_the_bound():
    plot = errorplot.plot([0.5, math.nan, math.inf, 0.0], window=2)
    assert plot.wedges.count("M") == 2
    assert plot.dots.count("M") == 2
    assert "2 positions of 4 over the bound, the first 1" in plot.label
    assert [text for _, text in plot.turns] == ["W"]


def test_long_runs_keep_their_worst_position():
    ratios = [0.1] * 5000
    ratios[3210] = 7.0
    plot = errorplot.plot(ratios)
    assert plot.wedges.count("M") == 1
    assert plot.dots.count("M") < 1000


def test_groups_are_by_kind_of_message():
    a, b = "query 8 sees [0] too many", "query 13 sees [1, 2] too many; query 14 sees [3] too many"
    assert failures.signature(a) == failures.signature(b)
    assert failures.signature(a) != failures.signature("query 8 lost [0]")
    raised = [record(item=c, check=c, status="error", message="E: x") for c in ("values", "reset")]
    failed = [record(item=c, check=c, status="fail", message="E: x") for c in ("values", "reset")]
    assert [g.checks for g in failures.groups(raised + failed)] == [
        "values, reset",
        "values",
        "reset",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (614400.0, "614,400"), (1.25e-7, "1.25e-07"), (math.inf, "∞"), (1234.5, "1,234"),
     (math.nan, "nan"), (-math.inf, "-∞"), (0.0, "0")],
)  # fmt: skip
def test_numbers(value, text):
    assert numbers.number(value) == text


def test_spans():
    assert numbers.spans([3, 0, 1, 2, 9]) == "0–3, 9"
    assert numbers.spans([]) == "none"


def test_an_unknown_status_is_refused():
    with pytest.raises(ValueError, match="unknown status 'odd'; known: missing"):
        tables([record(status="odd")])[0].lines["ours"].cells["values"].said  # noqa: B018


def test_the_picture_is_a_file_by_itself(frame, tmp_path):
    out = picture.write(frame, tmp_path / "docs" / "matrix.svg")
    root = ElementTree.parse(out).getroot()
    said = [e.text for e in root.iter("{http://www.w3.org/2000/svg}title")]
    assert "1 fail" in said
    assert "1 known, 1 pass" in said
    texts = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"ours", "broken", "gone", "not installed", "not claimed"} <= set(texts)
    assert picture.render(frame) == out.read_text(encoding="utf-8")
    assert not re.search(r"(href|src|url\()", picture.render(frame))


def test_the_picture_escapes_names():
    text = picture.render(to_frame([record(subject="a<b&c")]))
    ElementTree.fromstring(text)
    assert "a&lt;b&amp;c" in text


def test_a_picture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no records"):
        picture.render(to_frame([]))
