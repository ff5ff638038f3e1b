"""Records of every status, and the page that is made of them, parsed."""

import math
from html.parser import HTMLParser

from gate_data import record

from harness.law import Layer
from harness.results.finding import Finding, Kind
from harness.results.record import finish

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
    """The finding for three rows that are off, one of them NaN and one infinite."""
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
    """The record, filed under a cause."""
    r.status, r.known = "known", "B1"
    return r


def reproducible(r, text):
    """True if the text has the whole command, or the option to change in the first one's."""
    return r.reproduce in text or f"--case {r.case}" in text
