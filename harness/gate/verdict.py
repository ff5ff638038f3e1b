"""The verdict: red or green, and every reason why, from records, baselines and known failures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.gate import baselines as baseline_files
from harness.gate import known as known_failures
from harness.gate import known_files
from harness.gate.baselines import Baselines
from harness.gate.drift import CLAIMS, Drift
from harness.gate.known import Cause, Stale
from harness.results import origin
from harness.results.complete import completed
from harness.results.complete import strays as strays_of
from harness.results.finding import RED, Status
from harness.results.folder import ALL, SHORT, Folder, RunInfo
from harness.results.groups import leaders_first
from harness.results.record import rows, to_frame
from harness.results.text import holding

if TYPE_CHECKING:
    import pandas as pd


#: Of the run, in `Verdict.to_json`.
_OF_THE_RUN = ("run", "matrix", "began", "commit", "branch", "changed")
_PYTEST_ENDINGS = {
    2: "was interrupted",
    3: "had an internal error",
    4: "was misused",
    5: "selected no test",
}


@dataclass
class Verdict:
    """What the gate says about a run.

    run: which run it is of.  reasons: why it is red; empty if it is green.  counts: records by
    status.  broken: the rows of the frame that make it red, starting with the first of each kind
    of failure.  no_baseline: the number of records with integers but no baseline row.  no_claims:
    subjects without a baseline of claims.  known: (cause, number of records that it explains).
    outside: failures of tests that are not conformance checks.  without_baselines: there is not
    one row of integers to compare with.
    """

    run: RunInfo = field(default_factory=lambda: RunInfo(""))
    reasons: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    broken: pd.DataFrame = field(default_factory=lambda: to_frame([]))
    drift: list[Drift] = field(default_factory=list)
    stale: list[Stale] = field(default_factory=list)
    known: list[tuple[Cause, int]] = field(default_factory=list)
    not_installed: dict[str, str] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    no_baseline: int = 0
    no_claims: list[str] = field(default_factory=list)
    whole: bool = False
    without_baselines: bool = False

    @property
    def red(self) -> bool:
        """True if anything speaks against a merge."""
        return bool(self.reasons)

    @property
    def exit_status(self) -> int:
        """0 for green, 1 for red."""
        return int(self.red)

    @property
    def headline(self) -> str:
        """One line: the colour, and the reasons or the number of checks that hold."""
        if self.red:
            return f"Red: {'; '.join(self.reasons)}"
        holds = holding(self.counts.get(Status.PASS, 0))
        if not self.whole:
            return f"Green for a part: {holds}; the run was not whole"
        if self.run.matrix == SHORT:
            return f"Green: {holds} in the short matrix"
        return f"Green: {holds}"

    @property
    def of(self) -> str:
        """Which run it is of, in one line: id, time, commit and branch."""
        return origin.said(self.run)

    @property
    def colour(self) -> str:
        """The verdict in one to four words, for a title."""
        if self.red:
            return "Red"
        return "Green" if self.whole else "Green for a part"

    def to_json(self) -> dict[str, Any]:
        """The verdict as plain data."""
        data = {f.name: getattr(self, f.name) for f in fields(self)} | {
            "run": self.run.run,
            "broken": self.broken["item"].tolist(),
            "drift": [asdict(drift) for drift in self.drift],
            "known": [_cause_json(cause, records) for cause, records in self.known],
            "stale": [{"subject": found.subject, "id": found.id} for found in self.stale],
        }
        which = {name: getattr(self.run, name) for name in _OF_THE_RUN}
        return {**which, "red": self.red, "headline": self.headline, **data}


def judge(
    frame: pd.DataFrame,
    baselines: Baselines,
    known: Sequence[Cause],
    run: RunInfo,
    required: Iterable[str] = (),
    *,
    need_whole: bool = False,
    strays: Sequence[str] = (),
) -> Verdict:
    """The verdict on a frame of completed records.

    run: whether everything was collected, how pytest ended, what failed outside the matrix.
    required: subjects that must have run.  need_whole: a partial run is red.  strays: what
    `harness.results.complete.strays` found.
    """
    comparison = baselines.compare(frame, whole=run.whole, matrix=run.matrix)
    planned_all = run.whole and run.matrix == ALL
    explained = frame.loc[frame["status"] == Status.KNOWN.value, "known"].value_counts()
    absent_subjects = frame[frame["status"] == Status.NOT_INSTALLED.value]
    out = Verdict(
        run=run,
        counts={
            str(status): int(n) for status, n in frame["status"].value_counts(sort=False).items()
        },
        broken=leaders_first(frame[frame["status"].isin([status.value for status in RED])]),
        drift=comparison.drift,
        stale=known_failures.stale(known, frame) if planned_all else [],
        known=[(cause, int(explained[cause.id])) for cause in known if cause.id in explained],
        not_installed={row.subject: row.message for row in rows(absent_subjects)},
        outside=list(run.outside),
        no_baseline=len(comparison.unknown),
        no_claims=baselines.claims.unknown(frame, run.matrix) if run.whole else [],
        whole=run.whole,
        without_baselines=baselines.empty,
    )
    absent = [f"shard {shard} did not come back" for shard in run.absent]
    out.reasons = [
        *absent,
        *_reasons(out),
        *_run_reasons(out, run),
        *_required(frame, required),
        *strays,
    ]
    if run.whole and baselines.empty and comparison.unknown:
        out.reasons.append("there are no baselines: no integer was compared")
    if need_whole and not run.whole:
        out.reasons.append("the run was not whole")
    return out


def read(
    results: Path,
    baselines: Path,
    known: Path,
    required: Iterable[str] = (),
    *,
    need_whole: bool = False,
) -> tuple[pd.DataFrame, Verdict]:
    """The completed frame and the verdict of a folder of results.

    Raises RecordsError, BaselineError or KnownFailuresError.
    """
    folder = Folder(results)
    frame = to_frame(completed(folder))
    verdict = judge(
        frame,
        baseline_files.read(baselines),
        known_files.load(known),
        folder.read_run(),
        required,
        need_whole=need_whole,
        strays=strays_of(folder),
    )
    return frame, verdict


def _cause_json(cause: Cause, records: int) -> dict[str, Any]:
    return {
        "subjects": list(cause.subjects),
        "id": cause.id,
        "severity": cause.severity,
        "records": records,
        "reason": cause.reason,
        "link": cause.link,
    }


def _reasons(verdict: Verdict) -> list[str]:
    claims = sum(drift.integer == CLAIMS for drift in verdict.drift)
    counted = (
        (verdict.counts.get(Status.FAIL, 0), "check fails", "checks fail"),
        (verdict.counts.get(Status.ERROR, 0), "check broke", "checks broke"),
        (verdict.counts.get(Status.MISSING, 0), "record is missing", "records are missing"),
        (verdict.counts.get(Status.FIXED, 0), "known failure passes", "known failures pass"),
        (len(verdict.drift) - claims, "integer drifted", "integers drifted"),
        (claims, "claim drifted", "claims drifted"),
        (len(verdict.stale), "known failure is stale", "known failures are stale"),
        (len(verdict.outside), "other test failed", "other tests failed"),
    )
    reasons = [f"{n} {one if n == 1 else many}" for n, one, many in counted if n]
    # A part may consist of known failures alone; the whole never does.
    answered = (Status.PASS,) if verdict.whole else (Status.PASS, Status.KNOWN)
    if not any(verdict.counts.get(status) for status in answered):
        reasons.append("no check passed")
    return reasons


def _run_reasons(verdict: Verdict, run: RunInfo) -> list[str]:
    """Reasons to be red if the run ended in another way than its records explain."""
    if run.exit_status is None:
        return ["the run did not end by itself"]
    if run.exit_status in _PYTEST_ENDINGS:
        return [f"pytest {_PYTEST_ENDINGS[run.exit_status]}"]
    if run.exit_status not in {0, 1}:
        return [f"pytest ended with status {run.exit_status}"]
    if run.exit_status == 1 and verdict.broken.empty and not verdict.outside:
        return ["pytest failed, and no record says why"]
    return []


def _required(frame: pd.DataFrame, required: Iterable[str]) -> list[str]:
    """A reason to be red for each required subject that did not run."""
    of_cases = frame[(frame["case"] != "") & (frame["status"] != Status.NOT_CLAIMED.value)]
    ran = set(of_cases["subject"])
    return [f"required subject {name} did not run" for name in required if name not in ran]
