"""For which families transformers' caches were measured: the outcome of a sweep over all of them.

`python suites/meta/support/decoder_sweep.py` writes the table, `measured.csv`: every decoder type,
whether the estimate of a tiny instance equals the bytes of its real cache, and if not, why.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from harness.estimate.decoders.table import types
from harness.estimate.families import canonical

TABLE = Path(__file__).with_name("measured.csv")

#: Verdicts: equal to the byte, refused with a reason, or not run, for a reason.
EQUAL, REFUSED, NOT_RUN, WRONG = "equal", "refused", "not run", "wrong"


@cache
def verdicts() -> dict[str, str]:
    """The verdict of each type."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return {row["type"]: row["verdict"] for row in csv.DictReader(file)}


@cache
def families() -> frozenset[str]:
    """The families of which a type was found equal, and none refused or wrong."""
    by_family: dict[str, set[str]] = {}
    for kind, verdict in verdicts().items():
        for name in _decoders(kind):
            by_family.setdefault(canonical(name), set()).add(verdict)
    return frozenset(
        name for name, found in by_family.items() if EQUAL in found <= {EQUAL, NOT_RUN}
    )


def _decoders(kind: str) -> list[str]:
    """A type, and the type of the decoder inside it if that is not measured by itself."""
    known = types().get(kind)
    inside = known.text[1] if known is not None and known.text is not None else kind
    return [kind] if inside in verdicts() else list({kind, inside})
