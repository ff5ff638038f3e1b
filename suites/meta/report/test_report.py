"""The HTML report, from frames that hold every status."""

import re
from collections import Counter

import pytest
from gate_data import CASE as FILED
from gate_data import ENTRY, entries, record, row
from report_pages import HOSTILE, Page, every_status, reproducible

from harness.gate.baselines import Baselines, key_of
from harness.gate.verdict import judge
from harness.report import html, status
from harness.report.comment import to_comment
from harness.report.summary import to_markdown
from harness.results.finding import RED, Status
from harness.results.folder import RunInfo
from harness.results.groups import groups
from harness.results.record import to_frame


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
