"""Rows of people's tables and of the report: models by runtimes, with the peers' errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.estimate import model_id, peers
from harness.estimate.geometry import Geometry
from harness.estimate.profiles import (
    PROFILES,
    Heuristic,
    LlamaCpp,
    Profile,
    Request,
    UnsupportedCache,
)

#: How a peer's figure is known.
PEER = "a peer"

#: Contexts of the report's table.
CONTEXTS = (8192, 32768, 131072)

#: Measured figures that estimates are held to.
REFERENCE = LlamaCpp()


@dataclass(frozen=True)
class Row:
    """One runtime's or estimator's figure.

    honours: whether windows are honoured.  nbytes: None where there is none; note then says why.
    layers: bytes per layer, where the figure has layers.  error: of an estimator, relative to the
    bytes that llama.cpp allocates.
    """

    name: str
    honours: str
    evidence: str
    nbytes: int | None
    layers: tuple[int, ...] = ()
    note: str = ""
    error: float | None = None


def row(profile: Profile, geometry: Geometry, request: Request) -> Row:
    """A profile's figure."""
    honours = str(profile.honours(geometry))
    try:
        total = profile.total(geometry, request)
        rule = isinstance(profile, Heuristic)
        layers = () if rule else tuple(profile.layer_bytes(geometry, request))
    except UnsupportedCache as why:
        return Row(profile.name, honours, profile.evidence, None, note=str(why))
    error = relative_error(total, geometry, request) if rule else None
    return Row(profile.name, honours, profile.evidence, total, layers, error=error)


def peer_rows(geometry: Geometry, request: Request) -> list[Row]:
    """The released estimators' figures."""
    rows = []
    for figure in peers.figures(geometry, request):
        label = f"{figure.name} {figure.version}".strip()
        error = None
        if figure.nbytes is not None:
            error = relative_error(figure.nbytes, geometry, request)
        rows.append(Row(label, "", PEER, figure.nbytes, (), figure.note, error))
    return rows


def relative_error(estimate: int, geometry: Geometry, request: Request) -> float | None:
    """(estimate - true) / true, true being llama.cpp's bytes; None where it holds no such cache."""
    try:
        true = REFERENCE.total(geometry, request)
    except UnsupportedCache:
        return None
    return (estimate - true) / true


def defaults(geometry: Geometry) -> list[Profile]:
    """Every profile with its default options; the rule of thumb knows the released models."""
    try:
        model = model_id.released(geometry.name)
        thumb = Heuristic(model.billions, model.active)
    except KeyError:
        thumb = Heuristic()
    return [thumb if kind is Heuristic else kind() for kind in PROFILES.values()]


@dataclass(frozen=True)
class Line:
    """A row of the published table."""

    geometry: Geometry
    context: int
    row: Row


def published_lines(contexts: Sequence[int] = CONTEXTS) -> Iterator[Line]:
    """The model table by contexts, runtimes and peers."""
    for model in model_id.RELEASED:
        geometry = model_id.read(model.row)
        for context in contexts:
            request = Request(context)
            for profile in defaults(geometry):
                yield Line(geometry, context, row(profile, geometry, request))
            for figure in peer_rows(geometry, request):
                yield Line(geometry, context, figure)
