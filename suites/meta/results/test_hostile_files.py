"""Files of results that were torn, flipped or forged: a verdict or one line, never a traceback.

`HOSTILE_EXAMPLES=2000` draws more of them than the few of every run.
"""

from __future__ import annotations

import csv
import io
import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from gate_data import RAISES, SAYS, record, results, row, write_known
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.cli import main as cli
from harness.gate import baselines as baseline_files
from harness.gate.baselines import Baselines, key_of
from harness.report import contexts, headlines, kv
from harness.results.folder import RunInfo

EXAMPLES = int(os.environ.get("HOSTILE_EXAMPLES", "25"))
#: What all examples together may add to the largest resident size.
MOST_BYTES = 600 * 2**20
COMMANDS = (
    ("gate",),
    ("report",),
    ("history",),
    ("merge", "reports/latest", "--out", "merged"),
    ("baseline", "update"),
    ("history", "add"),
)
#: The commands that read the files of a folder.
READERS = {
    "latest": COMMANDS,
    "history": (("history",), ("report",), ("history", "add")),
    "baselines": (("gate",), ("report",), ("baseline", "update")),
    "known_failures": (("gate",), ("report",), ("baseline", "update")),
}
FILES = (
    "reports/latest/records.jsonl",
    "reports/latest/run.json",
    "reports/latest/collected.json",
    "reports/latest/kills.json",
    "reports/baselines/uniform.csv",
    "reports/baselines/claims.csv",
    "suites/known_failures/ours.toml",
    "suites/known_failures/ours.csv",
    "reports/history/20261101T000000-aaaa.parquet",
    "reports/history/20261102T000000-bbbb.parquet",
)
RUN = "20261102T000000-bbbb"


def a_run() -> list[Any]:
    """Records of most statuses, with all that a page draws."""
    sets = [[9, [2, 3, 9], [1, 2, 3, 9]], [10, [3, 10], [3]]]
    drawn = {"rows": sets, "errors": [0.1, 3.0, 1e9], "neighbours": {"window 9": [0.1, 2.0, 1e9]}}
    made = [
        record(
            item="a", check="cache_bytes", cache_bytes=4096, figure=1e-6, bound=1e-5, margin=9.0
        ),
        record(item="b", status="fail", kind="sees-too-many", first_bad=9, message="m", **drawn),
        record(item="c", check="reset", status="error", exception="RuntimeError", message=SAYS),
        record(item="d", check="visibility", status="known", known="B1", kind="lost-keys"),
        record(item="e", subject="gone", check="load", status="not-installed", case="", scheme=""),
        record(item="f", check="purity", status="not-claimed", message="no"),
    ]
    for one in made:
        one.run = RUN
    return made


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout after two runs, of which every file can be read."""
    place = tmp_path_factory.mktemp("sound")
    made = a_run()
    run = RunInfo(RUN, whole=True, exit_status=1, outside=["x.py::y"], began="2026-11-02T00:00:00")
    results(place, *made, run=run)
    write_known(place / "suites" / "known_failures", RAISES, rows=[row(check="visibility")])
    held = Baselines({"uniform": {key_of(made[0]): {"cache_bytes": 4097}}})
    baseline_files.write(held, place / "reports" / "baselines")
    (place / "reports" / "latest" / "kills.json").write_text(
        json.dumps([{"name": "n", "what": "w", "checks": [["values", 1, 2]], "expected": []}])
    )
    assert called(place, ("history", "add"))[0] == 0
    first, second = (place / file for file in FILES[-2:])
    shutil.copy(second, first)
    (place / "reports" / "baselines" / "claims.csv").write_text(
        "subject,check,device,threads,versions,claimed,claimed_short\n"
        "ours,reset,cpu,1,torch=2.13.0,3,1\n"
    )
    for command in COMMANDS:
        copy = shutil.copytree(place, tmp_path_factory.mktemp("copy") / "c")
        status, said = called(copy, command)
        assert status in {0, 1}, said
    return place


@pytest.fixture(scope="module", autouse=True)
def once() -> Iterator[None]:
    """What a page says of no run is computed once: each example draws a page."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((kv, "sections"), (contexts, "charts"), (headlines, "headlines")):
            patch.setattr(module, name, cache(getattr(module, name)))
        yield


def called(place: Path, command: tuple[str, ...]) -> tuple[int, str]:
    """Run `harness` in a folder: its exit status, and all that it prints."""
    out, argv = io.StringIO(), sys.argv
    sys.argv = ["harness", *command]
    try:
        with chdir(place), redirect_stdout(out), redirect_stderr(out):
            cli.main()
    except SystemExit as ended:
        return int(ended.code or 0), out.getvalue()
    finally:
        sys.argv = argv
    return 0, out.getvalue()


# --- what happens to a file --------------------------------------------------------------------

_TEXTS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["\x1b[2J", "\u202e", "\ud800", "a\nb", "'", "[bold]", "<b>", "../x", "x" * 500]
    ),
)
_NUMBERS = st.one_of(
    st.sampled_from([10**9, 2**63 - 1, -(2**63), 2**64, 10**400, -1, 0, 1e308, 1e-320]),
    st.sampled_from(["inf", "-inf", "nan"]),
    st.integers(),
)
_VALUES: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def torn(draw: Any, held: bytes) -> bytes:
    """The bytes, cut short or with some of them flipped or filled in."""
    if draw(st.booleans()):
        return held[: draw(st.integers(0, len(held)))]
    out = bytearray(held)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(out) - 1)))
        out[at : at + 1] = draw(st.binary(min_size=1, max_size=3))
    return bytes(out)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[name], (*path, name))


def _put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    out = value.copy()
    out[path[0]] = _put(value[path[0]], path[1:], new)
    return out


@st.composite
def forged_json(draw: Any, held: bytes, *, lines: bool) -> bytes:
    """The JSON with another value in a few places."""
    documents = [json.loads(line) for line in (held.splitlines() if lines else [held])]
    for _ in range(draw(st.integers(1, 3))):
        which = draw(st.integers(0, len(documents) - 1))
        place = draw(st.sampled_from(list(_places(documents[which]))))
        documents[which] = _put(documents[which], place, draw(_VALUES))
    return b"\n".join(json.dumps(document).encode() for document in documents) + b"\n"


@st.composite
def forged_csv(draw: Any, held: bytes) -> bytes:
    """The table with another text in a cell, or a row twice."""
    table = [line for line in csv.reader(io.StringIO(held.decode())) if line]
    at = draw(st.integers(0, len(table) - 1))
    cell = draw(st.integers(0, len(table[at]) - 1))
    table[at][cell] = str(draw(_NUMBERS | _TEXTS))
    table += draw(st.lists(st.sampled_from(table), max_size=1))
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(table)
    return out.getvalue().encode("utf-8", "surrogatepass")


@st.composite
def damage(draw: Any, sound: Path) -> tuple[str, bytes]:
    """A file, and what it holds now."""
    name = draw(st.sampled_from(FILES))
    path = sound / name
    held = path.read_bytes()
    kinds = [torn(held)]
    if name.endswith(("json", "jsonl")):
        kinds += [forged_json(held, lines=name.endswith("jsonl"))] * 2
    if name.endswith("csv"):
        kinds.append(forged_csv(held))
    return name, draw(st.one_of(kinds))


# --- and what the commands make of it -----------------------------------------------------------


@given(data=st.data())
@settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_a_damaged_file_is_a_verdict_or_a_line(sound: Path, data: st.DataObject) -> None:
    name, held = data.draw(damage(sound))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        place = Path(shutil.copytree(sound, f"{folder}/c"))
        (place / name).write_bytes(held)
        for command in READERS[name.split("/")[1]]:
            status, said = called(place, command)
            assert status in {0, 1, 2}, said
            assert "Traceback" not in said
            assert not [c for c in said if ord(c) < 32 and c != "\n"], said
            if status == 2:
                assert len([line for line in said.splitlines() if line[:9] == "harness: "]) == 1, (
                    said
                )
            page = place / "reports" / "latest" / "index.html"
            assert not page.exists() or page.stat().st_size < 4_000_000
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < MOST_BYTES
