"""Records: one flat row per check and case, as a JSON line and as a row of a frame."""

from __future__ import annotations

import json
import math
import os
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.results import json_types
from harness.results.finding import Kind

if TYPE_CHECKING:
    import pandas as pd

    from harness.cases.case import Case
    from harness.results.finding import Finding

#: Integers that are compared with the baselines exactly, beside first_bad of known failures.
INTEGERS = (
    "cache_bytes",
    "peak_bytes",
    "retained_bytes",
    "live_bytes",
    "planned_bytes",
    "mutable_bytes",
    "pte_bytes",
)


@dataclass(frozen=True)
class Origin:
    """What the records of one subject share.

    device: kind ("cpu", "cuda"); threads: torch threads; versions: of torch and of the released
    package that the subject belongs to.
    """

    subject: str
    target: str
    subject_version: str = ""
    device: str = "cpu"
    threads: int = 1
    versions: dict[str, str] = field(default_factory=dict)


@dataclass
class Record:
    """One check of one case.  Field by field what the columns of the frame are.

    kind: what went wrong, as in `Finding.kind`; "" where nothing did.
    item: the pytest node id, or "check::name::case" outside pytest.  known: id of the known
    failure that explains (or, for "fixed", no longer explains) the outcome.  rows: (position,
    expected visible keys, recovered visible keys).  errors: per position, over the bound;
    neighbours: the same under the nearest wrong laws, of what failed.
    """

    run: str
    item: str
    subject: str
    check: str
    status: str
    subject_version: str = ""
    scheme: str = ""
    model: str = ""
    schedule: str = ""
    dtype: str = ""
    batch: int | None = None
    case: str = ""
    figure: float | None = None
    bound: float | None = None
    margin: float | None = None
    first_bad: int | None = None
    cache_bytes: int | None = None
    peak_bytes: int | None = None
    retained_bytes: int | None = None
    live_bytes: int | None = None
    planned_bytes: int | None = None
    mutable_bytes: int | None = None
    pte_bytes: int | None = None
    seconds: float | None = None
    kind: str = ""
    message: str = ""
    exception: str = ""
    known: str = ""
    reproduce: str = ""
    device: str = ""
    threads: int | None = None
    versions: dict[str, str] = field(default_factory=dict)
    rows: list[Any] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    neighbours: dict[str, list[float]] = field(default_factory=dict)

    def to_json(self) -> str:
        """One line of strict JSON; infinities and NaN, which JSON lacks, become strings."""
        data = _strict(asdict(self))
        if not self.neighbours:  # nearly every record: a fiftieth of the file
            del data["neighbours"]
        return json.dumps(data, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The record of one line.  Raises ValueError, naming the field, for what is not one."""
        try:
            data = json.loads(line)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        known = {f.name: str(f.type) for f in fields(cls)}
        if not isinstance(data, dict) or not set(data) <= set(known):
            raise ValueError("not a record")
        try:
            return cls(**{name: json_types.read(known[name], name, data[name]) for name in data})
        except TypeError as error:
            raise ValueError(str(error)) from error


def start(origin: Origin, run: str, item: str, check: str, case: Case) -> Record:
    """The record of a check that has not come back yet: an error, until it does."""
    return Record(
        run=run,
        item=item,
        subject=origin.subject,
        subject_version=origin.subject_version,
        scheme=case.scheme,
        model=case.model.name,
        schedule=case.schedule.name,
        dtype=case.dtype,
        batch=case.batch,
        case=case.id,
        check=check,
        status="error",
        kind=str(Kind.DIED),
        message="the check did not come back",
        reproduce=reproduce_line(origin.target, check, case),
        device=origin.device,
        threads=origin.threads,
        versions=dict(origin.versions),
    )


def reproduce_line(target: str, check: str, case: Case) -> str:
    """The command that runs one check of one case again."""
    return f"harness check {shlex.quote(target)} --case {case.id} --check {check}"


def finish(record: Record, finding: Finding, seconds: float) -> Record:
    """Fill a started record from its finding, and return it.

    Raises ValueError for a name in `finding.bytes` that no column holds.
    """
    unknown = set(finding.bytes) - set(INTEGERS)
    if unknown:
        raise ValueError(f"bytes of a finding are {', '.join(INTEGERS)}; got {sorted(unknown)}")
    record.status = str(finding.status)
    for name in ("figure", "bound", "margin", "first_bad", "message", "exception"):
        setattr(record, name, getattr(finding, name))
    record.kind = str(finding.kind or "")
    for name, value in finding.bytes.items():
        setattr(record, name, int(value))
    record.rows = [list(row) for row in finding.rows]
    record.errors = [float(e) for e in finding.errors]
    record.neighbours = {name: list(held) for name, held in finding.neighbours.items()}
    record.seconds = round(seconds, 4)
    return record


@dataclass(frozen=True)
class Collected:
    """An item that was to run: enough to name it if its record never comes."""

    item: str
    subject: str
    check: str
    scheme: str = ""
    case: str = ""
    reproduce: str = ""


def missing(run: str, item: Collected) -> Record:
    """The record of an item whose record never came."""
    model, schedule, dtype, batch = (item.case.split("/") + [""] * 4)[:4]
    return Record(
        run=run,
        item=item.item,
        subject=item.subject,
        check=item.check,
        status="missing",
        kind=str(Kind.MISSING),
        scheme=item.scheme,
        model=model,
        schedule=schedule,
        dtype=dtype,
        batch=int(batch[1:]) if batch[1:].isdecimal() else None,
        case=item.case,
        message="collected, but no record came back",
        reproduce=item.reproduce,
    )


_FRAME_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("batch", "first_bad", "threads", *INTEGERS), "Int64"),
    **dict.fromkeys(("figure", "bound", "margin", "seconds"), "float64"),
    **dict.fromkeys(("versions", "rows", "errors", "neighbours"), "object"),
}


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a record, columns as in `Record`; integers are nullable and exact (Int64)."""
    import pandas as pd

    rows = list(records)
    return pd.DataFrame(
        {
            f.name: pd.Series(
                [getattr(r, f.name) for r in rows], dtype=_FRAME_TYPES.get(f.name, "str")
            )
            for f in fields(Record)
        }
    )


def from_frame(frame: pd.DataFrame) -> list[Record]:
    """The records of a frame that `to_frame` made, extra columns ignored."""
    import pandas as pd

    names = [f.name for f in fields(Record)]
    out = []
    for row in frame[names].to_dict("records"):
        clean: dict[str, Any] = {
            str(k): None if not isinstance(v, list | dict) and pd.isna(v) else v
            for k, v in row.items()
        }
        out.append(Record(**clean))
    return out


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old one or the new one, never half of it."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def figure_text(value: float | None) -> str:
    """A measured figure for people: whole numbers in full, the rest to four digits."""
    if value is None:
        return "-"
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{value:.0f}"
    return f"{value:.4g}"


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return value
