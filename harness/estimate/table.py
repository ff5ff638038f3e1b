"""Rows for the table of `harness kv` and for the report: a figure per runtime and per peer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.estimate import evidence, model_id, peers
from harness.estimate.geometry import Geometry
from harness.estimate.profiles import (
    PROFILES,
    Heuristic,
    LlamaCpp,
    Profile,
    Request,
    UnsupportedCache,
)

#: The `evidence` of a peer's figure.
PEER = "a peer"

#: Context lengths in the report's table.
CONTEXTS = (8192, 32768, 131072)

#: The profile that errors are relative to: tests compare it with what llama.cpp allocates.
REFERENCE = LlamaCpp()


@dataclass(frozen=True)
class Row:
    """The figure of one runtime or estimator.

    honours: whether it honours windows.  evidence: how the figure is known.
    nbytes: None if there is no figure; note then says why.
    layers: bytes per layer, empty for a figure that is not made up of layers.
    error: only for an estimator: its error relative to the bytes that llama.cpp allocates.
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
    honours, known = str(profile.honours(geometry)), evidence.known_by(profile, geometry)
    try:
        total = profile.total(geometry, request)
        rule = isinstance(profile, Heuristic)
        layers = () if rule else tuple(profile.layer_bytes(geometry, request))
    except UnsupportedCache as why:
        return Row(profile.name, honours, known, None, note=str(why))
    error = relative_error(total, geometry, request) if rule else None
    return Row(profile.name, honours, known, total, layers, error=error)


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
    """(estimate - true) / true, where true is llama.cpp's bytes; None if it has no such cache."""
    try:
        true = REFERENCE.total(geometry, request)
    except UnsupportedCache:
        return None
    return (estimate - true) / true


def defaults(geometry: Geometry) -> list[Profile]:
    """Every profile with its default options.

    The rule of thumb gets the number of parameters if the geometry is a released model's.
    """
    try:
        model = model_id.released(geometry.name)
        thumb = Heuristic(model.billions, model.active)
    except KeyError:
        thumb = Heuristic()
    return [thumb if kind is Heuristic else kind() for kind in PROFILES.values()]


@dataclass(frozen=True)
class Line:
    """A row of the report's table, with the model and the context that it belongs to."""

    geometry: Geometry
    context: int
    row: Row


def published_lines(contexts: Sequence[int] = CONTEXTS) -> Iterator[Line]:
    """Every model of the table, at every context, in every runtime and from every peer."""
    for model in model_id.RELEASED:
        geometry = model_id.read(model.row)
        for context in contexts:
            request = Request(context)
            for profile in defaults(geometry):
                yield Line(geometry, context, row(profile, geometry, request))
            for figure in peer_rows(geometry, request):
                yield Line(geometry, context, figure)
