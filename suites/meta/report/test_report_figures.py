"""The drawings of the report: visible sets, errors, groups, looks and the picture."""

import itertools
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from gate_data import planned, record
from typer.testing import CliRunner

from harness.cli import main as cli
from harness.cli.common import Misuse
from harness.report import errorplot, picture, status, visible
from harness.results.finding import RED, Status
from harness.results.folder import Folder, RunInfo
from harness.results.groups import groups
from harness.results.record import to_frame


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


def test_neighbouring_laws_are_drawn_beside_the_errors():
    ratios = [0.1, 0.2, 300.0, 400.0]
    near = {
        "window 9": [0.0, 0.0, 300.4, 401.0],
        "window 7": [0.0, 20.0, 30.0, 0.0],
        "sink 3": [0.0, 0.0, 7.0, 0.0],
        "elsewhere": [1.0],
    }
    plot = errorplot.plot(ratios, neighbours=near)
    assert [(c.name, c.worst, c.same) for c in plot.curves] == [
        ("window 9", 401.0, True),
        ("sink 3", 7.0, False),
        ("window 7", 30.0, False),
    ]
    assert all(c.path.count("M") == 1 for c in plot.curves)
    assert "window 9 would be off by up to 401 bounds, and the measured errors match." in plot.label
    assert "sink 3 would be off by up to 7 bounds." in plot.label
    top = errorplot.plot([0.1, 0.1], neighbours={"window 9": [0.0, 1e8]}).curves[0].path
    assert int(top[1:].split(" ")[1].partition("h")[0]) >= errorplot.TOP, "the scale holds them"


def test_of_many_laws_the_nearest_are_drawn():
    near = {f"window {n}": [0.0, float(n)] for n in range(20, 40)}
    assert [c.worst for c in errorplot.plot([0.1, 9.0], neighbours=near).curves] == [
        20.0,
        21.0,
        22.0,
        23.0,
        24.0,
    ]


def far_away(key):
    """One query far beyond the others, and a key that is named nowhere else."""
    return [[3, [1, 2, 3], [2, 3]], [key, [key - 1, key], [key]]]


@pytest.mark.parametrize("key", [10**9, 2**63 - 1, -(2**63) + 1])
def test_a_position_far_away_costs_no_more_than_a_near_one(key):
    drawn = visible.draw(far_away(key))
    assert drawn.width < visible.draw(far_away(200)).width + 100
    assert not drawn.cut
    assert sum("M" in p.paths.get("lost", "") for p in drawn.panels) == 1


def test_a_drawing_that_nobody_could_read_is_cut_and_says_so():
    every_other = [[q, list(range(0, q, 2)), [q]] for q in range(20_000, 20_100)]
    drawn = visible.draw(every_other)
    assert drawn.cut
    assert (len(drawn.queries), drawn.width < 6_000) == (40, True)
    assert max(len(p.label) for p in drawn.panels) <= 2_000


def test_errors_without_a_number_are_no_laws():
    (curve,) = errorplot.plot([math.nan, 1.0], neighbours={"window 9": [math.nan, 1.0]}).curves
    assert not curve.same


def test_groups_are_by_kind():
    broken = [
        record(item=str(i), status="fail", kind=kind)
        for i, kind in enumerate(("sees-too-many", "lost-keys", "sees-too-many"))
    ]
    assert [[r.item for r in g.records] for g in groups(to_frame(broken))] == [["0", "2"], ["1"]]


def test_errors_are_grouped_by_exception_over_all_checks():
    def errors(exception):
        return [
            record(item=c, check=c, status="error", kind="raised", exception=exception)
            for c in ("values", "reset")
        ]

    failed = [record(item=c, check=c, status="fail", kind="blind") for c in ("values", "reset")]
    found = groups(to_frame([*errors("TypeError"), *errors("ValueError"), *failed]))
    assert [g.checks for g in found] == ["values, reset", "values, reset", "values", "reset"]


def test_a_reworded_message_changes_no_group():
    def grouped(words):
        broken = [
            record(
                item=f"{s} {k} {c}", subject=s, check=c, status="fail", kind=k, message=next(words)
            )
            for s in ("ours", "theirs")
            for k in ("lost-keys", "wrong-keys")
            for c in ("visibility", "values", "visibility")
        ]
        return [[r.item for r in group.records] for group in groups(to_frame(broken))]

    plain = grouped(f"query {i} lost [{i}]" for i in itertools.count())
    assert grouped(itertools.repeat("")) == plain
    assert grouped(f"{'x' * i}: something else; {i}" for i in itertools.count()) == plain
    assert len(plain) == 8


def test_an_unknown_status_is_refused():
    with pytest.raises(ValueError, match="unknown status 'odd'; known: missing"):
        status.look("odd")


def test_what_did_not_run_is_shown_last_and_the_gravest_first():
    shown = list(status.LOOKS)
    assert shown[0] == "missing"
    assert shown[-3:] == ["pass", "not-installed", "not-claimed"]
    assert set(shown) == set(Status)
    assert status.ordered({"pass": 2, "not-claimed": 1, "fail": 3, "known": 0}) == [
        ("fail", 3),
        ("pass", 2),
        ("not-claimed", 1),
    ]


def test_only_what_holds_is_green():
    assert [s for s, look in status.LOOKS.items() if look.colour == "green"] == ["pass"]
    assert {s for s, look in status.LOOKS.items() if look.colour == "red"} == RED


def test_the_picture_is_a_file_by_itself(tmp_path):
    frame = to_frame(
        [
            record(item="1", check="visibility"),
            record(item="2", check="visibility", status="known"),
            record(item="3", check="rewind", status="not-claimed"),
            record(item="4", subject="broken", status="fail"),
            record(item="5", subject="gone", check="load", case="", status="not-installed"),
        ]
    )
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


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with the results of one run, as the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("reports/baselines", "suites/known_failures"):
        (tmp_path / name).mkdir(parents=True)
    folder = Folder(tmp_path / "reports" / "latest")
    folder.clear()
    folder.append(record(item="a"))
    folder.write_collected([planned("a")])
    folder.write_run(RunInfo("r1", exit_status=0, resident_peak_bytes=768 * 2**20))
    return folder


def test_a_command_draws_the_picture(checkout):
    done = CliRunner().invoke(cli.app, ["report", "--picture", "docs/matrix.svg"])
    assert done.exit_code == 0
    text = Path("docs/matrix.svg").read_text(encoding="utf-8")
    assert text == picture.render(to_frame([record(item="a")]))
    assert "docs/matrix.svg" in done.output
    assert not (checkout.path / "index.html").exists()


def test_a_picture_of_no_records_is_misuse(checkout):
    checkout.records.write_text("")
    checkout.write_collected([])
    done = CliRunner().invoke(cli.app, ["report", "--picture", "matrix.svg"])
    assert isinstance(done.exception, Misuse)
    assert "--picture: the frame holds no records" in str(done.exception)
    assert not Path("matrix.svg").exists()


def test_the_page_names_the_peak_resident_size_as_indicative(checkout):
    assert CliRunner().invoke(cli.app, ["report"]).exit_code == 0
    page = (checkout.path / "index.html").read_text(encoding="utf-8")
    assert "<dt>peak resident size</dt><dd>768 MiB in one process, indicative" in page


def test_a_picture_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no records"):
        picture.render(to_frame([]))
