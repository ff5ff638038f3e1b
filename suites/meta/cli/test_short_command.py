"""`harness short` chooses from a whole run of the whole plan alone, and `--check` runs nothing."""

from __future__ import annotations

from pathlib import Path

from harness.cover import kills
from harness.gate.short import Short, read, write
from harness.results.folder import ALL, SHORT, Folder, RunInfo
from harness.results.record import Record
from harness.run import plan, registry

SUITES = Path(__file__).parents[2]


def results(folder: Path, run: RunInfo) -> None:
    """A folder of results of every case of one subject."""
    target = registry.load("harness.full")
    records = [
        Record("r1", f"{check} {case.id}", target.name, check, "pass", case=case.id, seconds=0.1)
        for check, case in plan.items(target)
    ]
    out = Folder(folder / "reports" / "latest")
    out.start(run)
    for record in records:
        out.append(record)
    out.write_collected(records)
    out.write_run(run)


def checkout(folder: Path) -> None:
    (folder / "suites" / "known_failures").mkdir(parents=True)


def test_it_needs_suites_and_a_whole_run_of_the_whole_plan(run_harness, tmp_path):
    assert run_harness("short")[0] == 2
    checkout(tmp_path)
    for run in (
        RunInfo("r1", whole=True, exit_status=0, matrix=SHORT),
        RunInfo("r1", whole=False, exit_status=0, matrix=ALL),
    ):
        results(tmp_path, run)
        status, _, err = run_harness("short")
        assert status == 2
        assert "holds no whole run of the whole plan; `harness run --all` makes it" in err


def test_it_writes_the_list_and_says_what_came_and_went(run_harness, tmp_path, monkeypatch):
    checkout(tmp_path)
    gone = ("values", "mistral/no-such/float32/b1")
    write(Short({"harness.full": {gone: ""}}), tmp_path / "suites")
    results(tmp_path, RunInfo("r1", whole=True, exit_status=0, matrix=ALL))
    scope = kills.ANY[registry.load("harness.full").body]
    shown = [kills.Shown("defect.A", scope, "values", "llama3/turns/float32/b3", 0.1)]
    monkeypatch.setattr(kills, "shown", lambda: iter([shown]))
    status, out, _ = run_harness("short")
    assert status == 0
    made = read(tmp_path / "suites")
    assert made.takes("harness.full", "values", "llama3/turns/float32/b3")
    assert f"- harness.full {' '.join(gone)}" in out
    assert f"+ {scope} values llama3/turns/float32/b3: kills defect.A" in out
    planned = len(plan.items(registry.load("harness.full")))
    assert f"{len(made.rows['harness.full'])} of {planned} cases" in out


def test_check_tells_what_is_left_out_and_what_is_listed_in_vain(run_harness, tmp_path):
    checkout(tmp_path)
    rows = read(SUITES).rows
    kept = {name: rows[name] for name in (*kills.ANY.values(), "harness.full")}
    write(Short(kept), tmp_path / "suites")
    assert "not planned" not in run_harness("short", "--check")[1]
    place, gone = next(iter(kept["harness.full"])), ("values", "mistral/no-such/float32/b1")
    fewer = {p: why for p, why in kept["harness.full"].items() if p != place} | {gone: ""}
    write(Short({**kept, "harness.full": fewer}), tmp_path / "suites")
    status, out, _ = run_harness("short", "--check")
    assert status == 1
    assert f"not planned: harness.full {' '.join(gone)}" in out
