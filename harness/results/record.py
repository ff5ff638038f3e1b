"""Records: one flat row per check and case, as a JSON line and as a row of a frame."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from harness.results import finding as declared
from harness.results import json_types
from harness.results.finding import Kind, Status

if TYPE_CHECKING:
    import pandas as pd

    from harness.cases.case import Case
    from harness.results.finding import Finding

#: Integers that are compared exactly with the baselines.
INTEGERS = declared.INTEGERS


@dataclass(frozen=True)
class Origin:
    """What all records of one subject have in common.

    device: its kind ("cpu", "cuda").  threads: torch threads.  versions: of torch and of the
    released package that the subject belongs to.
    """

    subject: str
    target: str
    subject_version: str = ""
    device: str = "cpu"
    threads: int = 1
    versions: dict[str, str] = field(default_factory=dict)


@dataclass
class Record:
    """The result of one check of one case; its fields are the columns of the frame.

    kind: what went wrong, as in `Finding.kind`; "" where nothing did.
    item: the pytest node id, or "check::name::case" outside pytest.  known: id of the known
    failure that explains (or, for "fixed", no longer explains) the outcome.  rows: (position,
    expected visible keys, recovered visible keys).  errors: the error at each position over its
    bound.  neighbours: for failures only, the same errors under each neighbouring law, keyed by
    how it differs.
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
    rewound: int | None = None
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
        if not self.neighbours:  # empty in nearly every record: saves a fiftieth of the file
            del data["neighbours"]
        return json.dumps(data, allow_nan=False)

    def filled(self) -> dict[str, Any]:
        """The fields that are not empty, as plain data: how planned records are written."""
        return {name: value for name, value in _strict(asdict(self)).items() if value not in _EMPTY}

    @classmethod
    def from_json(cls, line: str) -> Record:
        """The record in one line.  Raises ValueError naming the field if it is not a record."""
        try:
            data = json.loads(line)
        except RecursionError as error:
            raise ValueError("nested too deep") from error
        return json_types.made(cls, data)


if TYPE_CHECKING:
    #: A row of a frame: a named tuple with the fields of a record, which `rows` yields.
    Row: TypeAlias = Record


def planned(origin: Origin, run: str, item: str, check: str, case: Case | None = None) -> Record:
    """The record of a planned check: its status is "missing" until a result replaces it.

    case: None for a subject that cannot be loaded.  versions, device and threads are empty, since
    it is not yet known where the check will run.
    """
    made = Record(
        run=run,
        item=item,
        subject=origin.subject,
        check=check,
        status=Status.MISSING.value,
        kind=str(Kind.MISSING),
        message="collected, but no record came back",
        reproduce=reproduce_line(origin.target, check, case),
    )
    if case is None:
        return made
    return replace(
        made,
        scheme=case.scheme,
        model=case.model.name,
        schedule=case.schedule.name,
        dtype=case.dtype,
        batch=case.batch,
        case=case.id,
    )


def start(origin: Origin, run: str, item: str, check: str, case: Case) -> Record:
    """The record of a check that has started: an error, until its result comes."""
    return replace(
        planned(origin, run, item, check, case),
        status=Status.ERROR.value,
        kind=str(Kind.DIED),
        message="the check did not come back",
        subject_version=origin.subject_version,
        device=origin.device,
        threads=origin.threads,
        versions=dict(origin.versions),
    )


def reproduce_line(target: str, check: str, case: Case | None) -> str:
    """The command that runs one check of one case again, or loads the subject again."""
    load = f"harness check {shlex.quote(target)}"
    return load if case is None else f"{load} --case {case.id} --check {check}"


def finish(record: Record, finding: Finding, seconds: float) -> Record:
    """Fill a started record from its finding, and return it.

    Raises ValueError for a name in `finding.bytes` that has no column.
    """
    unknown = set(finding.bytes) - set(INTEGERS)
    if unknown:
        raise ValueError(f"bytes of a finding must be {', '.join(INTEGERS)}; got {sorted(unknown)}")
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


#: What `Record.filled` leaves out.
_EMPTY: tuple[Any, ...] = (None, "", [], {})

_FRAME_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("batch", "first_bad", "threads", *INTEGERS), "Int64"),
    **dict.fromkeys(("figure", "bound", "margin", "seconds"), "float64"),
    **dict.fromkeys(("versions", "rows", "errors", "neighbours"), "object"),
}


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row per record, columns as in `Record`; integers are nullable and exact (Int64)."""
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


def rows(frame: pd.DataFrame) -> Iterator[Row]:
    """The rows of a frame made by `to_frame`, or of a part of one, one at a time.

    Missing values (NA, NaN) are None in a row.
    """
    held = frame.astype(object).where(frame.notna(), None)
    return cast("Iterator[Row]", held.itertuples(index=False, name="Row"))


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {str(k): _strict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(v) for v in value]
    return value
