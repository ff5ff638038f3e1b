"""Every decoder type of transformers: the estimate of a tiny instance against its real cache.

    python suites/meta/support/decoder_sweep.py

writes `harness/estimate/decoders/measured.csv`, in about three minutes.  A type is equal if the
bytes behind the prompt, behind the next token and behind the last one are all equal, from a short
config.json and from the one that transformers saves.
"""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

import torch
from tiny_decoders import (
    PROMPT,
    SINGLES,
    cache_sizes,
    config_class,
    decoder_types,
    instance,
    tiny_fields,
)

from harness.estimate import hf_config
from harness.estimate.decoders.measured import EQUAL, NOT_RUN, REFUSED, TABLE, WRONG
from harness.estimate.geometry import Geometry, GeometryError
from harness.estimate.profiles import Request
from harness.estimate.profiles.transformers import Dynamic

_PHASES = ("prefill", "first_decode", "steady")


@dataclass(frozen=True)
class Outcome:
    """What became of a type.  why: the reason, where it is not equal."""

    verdict: str
    why: str = ""


def configs(model_type: str) -> tuple[Any, list[dict[str, Any]]]:
    """A tiny config, and what a short and a whole config.json of it hold."""
    kind = config_class(model_type)
    short = {"model_type": model_type} | tiny_fields(kind)
    made = kind(**tiny_fields(kind))
    return made, [short, json.loads(json.dumps(made.to_dict(), default=str))]


def estimates(geometry: Geometry, stored: str = "f32") -> tuple[int, ...]:
    """What the estimate says of the three phases."""
    requests = (
        Request(PROMPT + SINGLES, 1, PROMPT, phase, k_type=stored, v_type=stored)
        for phase in _PHASES
    )
    return tuple(Dynamic().total(geometry, request) for request in requests)


def outcome(model_type: str, dtype: torch.dtype = torch.float32) -> Outcome:
    """Compare one type."""
    stored = "f32" if dtype == torch.float32 else "bf16"
    try:
        made, texts = configs(model_type)
    except Exception as error:  # the class refuses what it is given, its own defaults included
        return Outcome(NOT_RUN, _line("no config", error))
    try:
        said = {estimates(hf_config.read(text, model_type), stored) for text in texts}
    except GeometryError as error:
        return Outcome(REFUSED, str(error).removeprefix(f"{model_type}: "))
    try:
        true = cache_sizes(instance(made).to(dtype))
    except Exception as error:  # needs images, a package, or is broken
        return Outcome(NOT_RUN, _line("no run", error))
    if said == {true}:
        return Outcome(EQUAL)
    return Outcome(WRONG, f"said {sorted(said)}, true {true}")


def _line(what: str, error: Exception) -> str:
    text = f"{what}: {type(error).__name__}: {error}"
    return " ".join(text.split())[:160]


def text() -> str:
    """The content of the table: every type, what became of it, and why."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("type", "verdict", "why"))
    for model_type in decoder_types():
        found = outcome(model_type)
        writer.writerow((model_type, found.verdict, found.why))
    return out.getvalue()


if __name__ == "__main__":
    TABLE.write_text(text(), encoding="utf-8")
