"""Charts of cache bytes against the context: one per scheme, with one line per runtime.

Every point is the figure of `harness kv` for that model and context.  Only geometry is made here;
the template turns it into SVG, and lists the lines below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.cases.models import PUBLISHED
from harness.estimate import model_id, table
from harness.estimate.geometry import Geometry
from harness.estimate.profiles import PROFILES, Dense, Heuristic, Ideal, OwnRing, OwnStatic, Request
from harness.estimate.profiles.base import slot_bytes
from harness.results.text import mebibytes

WIDTH, HEIGHT = 640, 270
LEFT, RIGHT, TOP, BOTTOM = 72, 8, 8, 38  # px around the plotted area

#: One released model for each scheme with windows or chunks, except sink.
MODELS = ("gemma3-27b", "mistral-7b-v0.1", "llama4-scout")
#: 512 to 131,072 positions in half octaves, so that kinks at full windows and batches show.
CONTEXTS = tuple(sorted({n for k in range(9, 17) for n in (2**k, 3 * 2 ** (k - 1))} | {2**17}))

_MIB, _GIB = 2**20, 2**30
#: Lines that look the same in every chart: what the laws give, and this package's own schemes.
_NAMED = (Dense.name, Ideal.name, OwnRing.name, OwnStatic.name)


@dataclass(frozen=True)
class Line:
    """Runtimes that take the same bytes at every context.  nbytes: at the longest context.

    look: CSS class of the line: "dense", "ideal", "harness-ring", …, or else "l0", "l1", …
    """

    names: tuple[str, ...]
    look: str
    path: str
    nbytes: int

    @property
    def thin(self) -> bool:
        """True for a line that is drawn after the others, which would hide it."""
        return self.look.startswith("l")

    @property
    def shown(self) -> str:
        """The bytes in MiB."""
        return mebibytes(self.nbytes)


@dataclass(frozen=True)
class Chart:
    """The chart of one model.  rules: (y, text) of the bytes.  ticks: (x, text) of the contexts.

    arithmetic: the sum for the line "ideal" at the longest context.  command: reproduces every
    line at that context.
    """

    model: str
    scheme: str
    label: str
    lines: tuple[Line, ...]
    rules: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, str], ...]
    arithmetic: str
    command: str


def charts(models: Sequence[str] = MODELS) -> list[Chart]:
    """A chart for each of these models, by name."""
    return [_chart(model_id.read(model)) for model in models]


def bytes_by_runtime(geometry: Geometry) -> dict[str, list[int | None]]:
    """By runtime, the bytes at each of `CONTEXTS`; None where it can hold no such cache.

    Left out: the rule of thumb, which is not a runtime, and runtimes without a figure at the
    longest context.
    """
    found = {}
    for profile in table.defaults(geometry):
        if not isinstance(profile, Heuristic):
            rows = [table.row(profile, geometry, Request(context)) for context in CONTEXTS]
            found[profile.name] = [row.nbytes for row in rows]
    return {name: sizes for name, sizes in found.items() if sizes[-1] is not None}


def arithmetic(geometry: Geometry) -> tuple[str, int]:
    """The fewest bytes that correct answers need at the longest context: sum and total."""
    request, terms = Request(CONTEXTS[-1]), dict[tuple[str, int, int], int]()
    for layer in geometry.layers:
        if layer.owns:
            slots = min(request.context, layer.reach or request.context)
            key = (layer.kind, slots, slot_bytes(layer, request))
            terms[key] = terms.get(key, 0) + 1
    text = " + ".join(
        f"{n} {kind} × {slots:,} slots × {nbytes:,} bytes"
        for (kind, slots, nbytes), n in terms.items()
    )
    return text, sum(n * slots * nbytes for (_, slots, nbytes), n in terms.items())


def _chart(geometry: Geometry) -> Chart:
    sizes = bytes_by_runtime(geometry)
    scale = _Scale.over([n for held in sizes.values() for n in held if n])
    lines = tuple(_lines(sizes, scale))
    text, total = arithmetic(geometry)
    scheme = PUBLISHED[geometry.name].scheme
    said = "; ".join(f"{' and '.join(line.names)} {line.shown}" for line in lines)
    return Chart(
        model=geometry.name,
        scheme=scheme,
        label=(
            f"Cache bytes of {geometry.name} against the context, both logarithmic. "
            f"At {CONTEXTS[-1]:,} positions: {said}."
        ),
        lines=lines,
        rules=tuple(scale.rules()),
        ticks=tuple((scale.x(c), _positions(c)) for c in CONTEXTS if c.bit_count() == 1),
        arithmetic=f"{Ideal.name} = {text} = {total:,} bytes",
        command=f"harness kv {geometry.name} --context {CONTEXTS[-1]}",
    )


def _lines(sizes: dict[str, list[int | None]], scale: _Scale) -> Iterator[Line]:
    """The lines, the most bytes first; runtimes with equal bytes share a line."""
    alike: dict[tuple[int | None, ...], list[str]] = {}
    for name, held in sizes.items():
        alike.setdefault(tuple(held), []).append(name)
    for sort, names in sorted(alike.items(), key=lambda item: -(item[0][-1] or 0)):
        first = sorted(names, key=lambda name: name not in _NAMED)  # the first sets the look
        yield Line(tuple(first), _look(first[0]), scale.path(sort), sort[-1] or 0)


def _look(name: str) -> str:
    """The CSS class of a runtime, the same in every chart."""
    if name in _NAMED:
        return name.replace(".", "-")
    return f"l{[other for other in PROFILES if other not in _NAMED].index(name)}"


@dataclass(frozen=True)
class _Scale:
    """Converts contexts and bytes to px.  low, top: log2 of the range of bytes drawn."""

    low: float
    top: float

    @classmethod
    def over(cls, sizes: Sequence[int]) -> _Scale:
        return cls(math.log2(min(sizes)) - 0.3, math.log2(max(sizes)) + 0.3)

    def x(self, context: int) -> float:
        first, last = math.log2(CONTEXTS[0]), math.log2(CONTEXTS[-1])
        share = (math.log2(context) - first) / (last - first)
        return round(LEFT + 12 + (WIDTH - LEFT - RIGHT - 24) * share, 1)

    def y(self, nbytes: float) -> float:
        share = (self.top - math.log2(nbytes)) / (self.top - self.low)
        return round(TOP + (HEIGHT - TOP - BOTTOM) * share, 1)

    def path(self, held: Sequence[int | None]) -> str:
        pairs = zip(CONTEXTS, held, strict=True)
        points = (f"{self.x(c):.0f} {self.y(n):.0f}" for c, n in pairs if n)
        return "M" + " ".join(points)

    def rules(self) -> Iterator[tuple[float, str]]:
        """(y, text) of every second power of two."""
        for power in range(math.ceil(self.low / 2) * 2, math.floor(self.top) + 1, 2):
            yield self.y(2.0**power), _size(2**power)


def _size(nbytes: int) -> str:
    return f"{nbytes // _GIB} GiB" if nbytes >= _GIB else f"{nbytes // _MIB} MiB"


def _positions(context: int) -> str:
    return str(context) if context < 1024 else f"{context // 1024}K"
