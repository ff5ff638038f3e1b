"""A case: a model under a schedule, in a dtype, at a batch size.  Its id reads like a sentence."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

from harness.cases import schedules
from harness.cases.models import Model, tiny
from harness.cases.schedules import Schedule

DTYPES = ("float64", "float32", "float16", "bfloat16")
VOCAB = 64
MAX_BATCH = 1024  # the visibility probe takes one row per token; more is a mistake


def stable_seed(text: str) -> int:
    """A 31-bit seed that is the same in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


@dataclass(frozen=True)
class Case:
    """What is run.

    Raises ValueError naming the field for a dtype or batch that is not allowed, and for a schedule
    that is too short for the wraps that it claims.
    """

    model: Model
    schedule: Schedule
    dtype: str = "float32"
    batch: int = 1

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if isinstance(self.batch, bool) or not 1 <= self.batch <= MAX_BATCH:
            raise ValueError(f"batch must be an integer in 1…{MAX_BATCH}, got {self.batch!r}")
        self.schedule.check_reach(self.window, self.model.sink)

    @cached_property
    def id(self) -> str:
        return f"{self.model.name}/{self.schedule.name}/{self.dtype}/b{self.batch}"

    @property
    def scheme(self) -> str:
        return self.model.scheme

    @property
    def window(self) -> int:
        """The length at which this model's caches turn over; 8 for full attention."""
        return self.model.turn

    @cached_property
    def seed(self) -> int:
        """The seed of single-layer inputs: one per case."""
        return stable_seed(self.id)

    @cached_property
    def weights_seed(self) -> int:
        """The seed of the weights: one per model, shared by every dtype, batch and schedule."""
        return stable_seed(self.model.name)

    @property
    def vocab(self) -> int:
        return VOCAB

    @property
    def max_context(self) -> int:
        """The most positions that will be held."""
        return self.schedule.max_context

    @property
    def max_chunk(self) -> int:
        """Tokens of the longest feed."""
        return self.schedule.max_chunk

    def with_batch(self, batch: int) -> Case:
        return replace(self, batch=batch)

    def with_dtype(self, dtype: str) -> Case:
        return replace(self, dtype=dtype)


def parse(case_id: str) -> Case:
    """The case of an id, "model/schedule/dtype/bN".

    Raises ValueError saying which part is unknown and what is allowed.
    """
    parts = case_id.split("/")
    if len(parts) != 4 or not parts[3].startswith("b") or not parts[3][1:].isdecimal():
        raise ValueError(f"case must read model/schedule/dtype/bN, got {case_id!r}")
    model = tiny(parts[0])
    if parts[1].startswith(schedules.STEPS):
        return Case(model, schedules.read_steps(parts[1]), parts[2], int(parts[3][1:]))
    known = {s.name: s for make in schedules.FAMILIES for s in make(model.turn, model.sink)}
    if parts[1] not in known:
        raise ValueError(
            f"unknown schedule {parts[1]!r}; known: {', '.join(known)}, or steps-5.x.9.r7.c.1"
        )
    return Case(model, known[parts[1]], parts[2], int(parts[3][1:]))
