"""The HTML report, from frames that hold every status."""

import math
import re
import time
from collections import Counter
from html.parser import HTMLParser

import pytest
from gate_data import CASE as FILED
from gate_data import ENTRY, entries, record, row

from harness.cases.models import TINY
from harness.gate.baselines import Baselines, key_of
from harness.gate.verdict import judge
from harness.law import Layer
from harness.report import html, status
from harness.report.comment import to_comment
from harness.report.summary import to_markdown
from harness.results.finding import RED, Finding, Kind, Status
from harness.results.folder import RunInfo
from harness.results.groups import groups
from harness.results.record import finish, rows, to_frame

HOSTILE = "<script>alert('x')</script> & \"quoted\" </details>"
CLOSED_BY = {"td": ("td",), "th": ("td",), "tr": ("td", "tr")}  # by a start tag
ENDED_BY = {"tr": ("td",), "tbody": ("td", "tr")}  # by an end tag
VOID = {"meta", "link", "input", "br", "hr", "img", "wbr"}


class Page(HTMLParser):
    """A parsed page; fails if a tag is closed in the wrong order or not at all."""

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
        """Close cells and rows whose end tags may be left out in HTML."""
        while self.open and self.open[-1] in tags:
            self.open.pop()

    def handle_endtag(self, tag):
        self.end_implied(ENDED_BY.get(tag, ()))
        assert self.open.pop() == tag, f"</{tag}> closes another element, {self.getpos()}"

    def handle_data(self, data):
        self.words.append(data)

    def attributes(self, name, tag=None):
        """All values of an attribute, of all elements or of one tag."""
        return [a[name] for t, a in self.tags if name in a and tag in (None, t)]

    @property
    def prose(self):
        """The text of the page, with white space collapsed."""
        return " ".join(" ".join(self.words).split())


def wrong_window(check="visibility"):
    """The finding for a window that is one key too wide."""
    finding = Finding(check)
    finding.compare_sets(Layer(window=8).mask(0, 20, 20), Layer(window=9).mask(0, 20, 20))
    return finding


def wrong_values():
    finding = Finding("values", figure=0.7, bound=1e-5, margin=812.5)
    finding.errors = [0.02] * 9 + [3e4, math.inf, math.nan, 0.0]
    finding.neighbours = {"window 9": [0.0] * 8 + [5e4] * 5, "window 7": [0.0] * 9 + [6e3] * 4}
    return finding.fail(Kind.WRONG_VALUES, "logits: 3 of 13 rows off", 9)


def every_status():
    """Records of each status, two schemes, one subject that is not installed."""
    out = [
        record(item="1", margin=57.25, bound=2e-5, figure=1e-6, cache_bytes=4608, seconds=2.5),
        record(item="2", check="visibility", case="mistral/decode-3wraps/float32/b1"),
        record(item="3", check="rewind", status="not-claimed", message="has no rewind"),
        record(
            item="4",
            subject="gone",
            status="not-installed",
            check="load",
            case="",
            scheme="",
            message="executorch is not installed",
        ),
        record(
            item="5",
            check="purity",
            status="missing",
            message="no record came back",
            case="gemma3/chunk-w+1/float32/b3",
            scheme="interleaved",
            seconds=None,
        ),
        record(
            item="6",
            check="reset",
            status="error",
            exception="RuntimeError",
            message=f"RuntimeError: {HOSTILE}",
            reproduce="harness check ours --case six",
        ),
        record(item="7", status="fixed", known="B9", message="known failure B9 passes"),
        record(
            item="8",
            subject="elsewhere",
            check="refusal",
            status="not-installed",
            message="coremltools is not installed",
        ),
    ]
    for i, finding in enumerate((wrong_window(), wrong_window(), wrong_values())):
        broken = record(
            item=f"broken{i}",
            subject="broken",
            check=finding.check,
            model="gemma3",
            case=f"gemma3/c{i}/float32/b1",
            scheme="interleaved",
            reproduce=f"harness check broken --case c{i}",
        )
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
    """Red for several reasons: broken records, a drifted row, a stale cause and another test."""
    folder = tmp_path_factory.mktemp("known")
    filed = [row("B1", check="visibility", case=FILED), row("B7", case="nowhere/chunk-4/x/b1")]
    known = entries(folder, ENTRY + ENTRY.replace("B1", "B7"), rows=filed)
    stored = {"uniform": {key_of(records[0]): {"cache_bytes": 4096}}}
    run = RunInfo(run="r1", whole=True, exit_status=1, outside=["suites/meta/test_x.py::test_y"])
    return judge(frame, Baselines(stored), known, run)


@pytest.fixture(scope="module")
def page(frame, verdict, tmp_path_factory):
    out = html.build(frame, verdict, tmp_path_factory.mktemp("report"))
    assert out.name == "index.html"
    return Page(out.read_text(encoding="utf-8"))


def counted(text):
    """Records by status, from the matrix's cells: "ours, values: 2 fail 1 pass · 1 known"."""
    words = {look.word: name for name, look in status.LOOKS.items()}
    out = Counter()
    for cell in re.findall(r"<a [^>]*data-cell[^>]*>(.*?)</a>", text, re.S):
        said = re.sub("<[^>]*>", "", cell.replace("<small>", " · ")).split(": ", 1)[1]
        for part in said.split(" · "):
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


LANDMARKS = {"section": "region", "form": "search", "nav": "navigation", "main": "main"}


def test_landmarks_have_names_of_their_own(page):
    """Two places with one role and one name cannot be told apart by who hears them."""
    names = [
        (a.get("role", LANDMARKS.get(tag)), a.get("aria-label") or a.get("aria-labelledby"))
        for tag, a in page.tags
        if tag in LANDMARKS or a.get("role") == "region"
    ]
    named = [pair for pair in names if pair[1]]
    assert len(named) > 8
    assert len(named) == len(set(named))


def test_a_name_that_is_heard_holds_what_is_seen(page):
    """A link or button with a label of its own must hold the words that stand on it."""
    labelled = [tag for tag, a in page.tags if tag in {"a", "button"} and "aria-label" in a]
    assert not labelled
    cells = re.findall(r"<a [^>]*data-cell[^>]*>(.*?)</a>", page.text, re.S)
    assert "ours, values: 1 fixed · 1 pass" in {
        " ".join(re.sub("<[^>]*>", "", c.replace("<small>", " · ")).split()) for c in cells
    }


def test_nothing_is_loaded_from_elsewhere(page):
    """Links and namespaces may name other places, but the browser fetches nothing from there."""
    assert not page.attributes("src")
    fetched = [a["href"] for tag, a in page.tags if "href" in a and tag != "a"]
    assert all(h.startswith(("#", "data:")) for h in fetched)
    assert not re.search(r"url\(|@import", page.text)
    assert not re.search(r"\bfetch\(|XMLHttpRequest|import\(", page.text)
    (policy,) = (a["content"] for tag, a in page.tags if "http-equiv" in a)
    assert policy.startswith("default-src 'none'")


def reproducible(r, text):
    """True if the text has the whole command, or the option to change in the first one's."""
    return r.reproduce in text or f"--case {r.case}" in text


def test_every_red_case_can_be_reproduced(page, records):
    red = [r for r in records if r.status in RED]
    assert len(red) > 4
    for r in red:
        assert reproducible(r, page.prose)


def test_counts_are_those_of_the_frame(page, frame, records):
    counts = Counter(frame["status"])
    held = Counter(r.status for r in records if r.case)
    assert counted(page.text) == held
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
    titles = ["What broke", "Matrix", "Known failures", "Margins", "Slowest cases", "Environment"]
    places = [page.text.index(f">{title}</h2>") for title in titles]
    assert places == sorted(places)


def test_drift_and_stale_entries_and_other_tests_are_named(page):
    assert "4,096 4,608 +512" in page.prose
    assert "B7 matches nothing that ran" in page.prose
    assert "suites/meta/test_x.py::test_y" in page.prose


def test_page_comment_and_summary_count_alike(page, verdict, frame):
    """The same kinds of failure, each with the same number of cases."""
    cards = re.findall(
        r'<h3>.*?</svg>(\S+) <span class="check">(.*?)</span> <span class="count">\w+ in (\d+) ',
        page.text,
    )
    kinds = [(g.first.subject, g.checks, str(g.size)) for g in groups(verdict.broken)]
    assert sorted(cards) == sorted(kinds)
    lines = re.findall(r"^\| \w+ \| `(\S+)` \| (.*?) \| (\d+) ", to_comment(verdict), re.M)
    assert sorted(lines) == sorted(kinds)
    commands = to_markdown(frame, verdict).partition("the first of each kind")[2]
    assert commands.partition("##")[0].count("\n- ") == len(kinds)


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
    assert "equals the one above" in page.prose
    assert "1 more case of this kind" in page.prose


def test_the_errors_stand_beside_those_of_the_neighbouring_laws(page):
    (label,) = (x for x in page.attributes("aria-label", "svg") if x.startswith("Error over bound"))
    assert "3 positions of 13 over the bound" in label
    assert "window 7 would be off by up to 6,000 bounds." in label
    assert "window 7: 6,000 window 9: 50,000" in page.prose
    assert {"law l0", "law l1"} <= set(page.attributes("class", "path"))


def test_known_failures_have_cause_and_link(page, verdict):
    ((entry, n),) = verdict.known
    assert entry.reason in page.prose
    assert f"torch {entry.versions['torch']}" in page.prose
    assert entry.link in page.attributes("href", "a")
    assert f"{entry.id} {n} case" in page.prose


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
        model, check = models[i // 60 % len(models)], checks[i % len(checks)]
        case = f"{model}/prefill-by-5-then-decode-{i}/float32/b1"
        made = record(
            item=str(i),
            subject=f"executorch.static.{i // 5 % 12}",
            check=check,
            case=case,
            model=model,
            scheme=TINY[model].scheme,
            reproduce=f"harness check s --case {case} --check {check}",
        )
        out.append(finish(made, outcome(i, check), 0.1))
    return out


def mixed(i, check):
    """One in ten fails, each in a different way."""
    finding = Finding(check, figure=1.23e-6, bound=2.34e-5, margin=123.4)
    if i % 10:
        return finding
    finding.errors = [1e-3 * ((i * p) % 97) ** 2 for p in range(51)]
    finding.neighbours = {
        f"window {n}": [0.0] * n + [1e3 * (1 + (i + p * n) % 89) for p in range(51 - n)]
        for n in (6, 7, 9, 10)
    }
    shift = Layer(window=4 + i // 10 % 9)
    finding.fail(list(Kind)[i // 10 % 10], f"rows off, first {i}", i)
    finding.compare_sets(Layer(window=8).mask(0, 40, 40), shift.mask(0, 40, 40))
    return finding


def all_fail(i, check):
    return mixed(10 * i, check)


@pytest.mark.parametrize("outcome", [mixed, all_fail])
def test_two_thousand_cases_are_quick_and_small(outcome, tmp_path):
    frame = to_frame(two_thousand(outcome))
    verdict = judge(frame, Baselines(), [], RunInfo(run="r1", exit_status=1))
    html.build(to_frame([]), judge(to_frame([]), Baselines(), [], RunInfo(run="r")), tmp_path)
    some = to_frame(two_thousand(outcome)[::4])
    few = judge(some, Baselines(), [], RunInfo(run="r1", exit_status=1))
    times = [time.process_time()]
    for built in ((some, few), (frame, verdict)):
        out = html.build(*built, tmp_path)
        times.append(time.process_time())
    # Four times the cases: time may at most double beyond proportion, on a machine of any speed.
    assert times[2] - times[1] < 2 * 4 * (times[1] - times[0])
    assert out.stat().st_size < 1_000_000
    text = re.sub("</?span>", "", out.read_text(encoding="utf-8"))
    assert all(reproducible(row, text) for row in rows(verdict.broken))
