"""The declaration of each check: name, file, when it holds, bodies, integers.  Plain data."""

from __future__ import annotations

from dataclasses import dataclass

#: The bodies that a subject may have, as `harness.contract.kind_of` names them.
ATTENTION, CACHE, DECODER = "attention", "cache", "decoder"


@dataclass(frozen=True)
class CheckInfo:
    """The declaration of one check; the function of the same name is in `harness.checks`.

    module: the file in `harness/checks/`.  holds: completes the sentence "the check holds when".
    bodies: kinds of subject for which it is planned.  integers: the exact counts that it
    records, each a field of `Record` and a column of the baselines.
    """

    name: str
    module: str
    holds: str
    bodies: tuple[str, ...] = (ATTENTION, CACHE, DECODER)
    integers: tuple[str, ...] = ()


#: Every check, in the order of the report.  A new check is a row here, a function in
#: `harness/checks/`, its rows in `harness.run.plan_table`, and a planted defect.  Plain data, so
#: that commands that run no check need not import torch.
CHECK_INFO: tuple[CheckInfo, ...] = (
    CheckInfo(
        "visibility",
        "visibility",
        "the recovered visible set equals the law's, for every query and schedule",
    ),
    CheckInfo(
        "values",
        "values",
        "each row's error against the float64 oracle is within the bound",
    ),
    CheckInfo(
        "gradients",
        "gradients",
        "dq, dk and dv are within the bound as well",
        bodies=(ATTENTION,),
    ),
    CheckInfo(
        "cache_bytes",
        "bytes",
        "storage bytes are those of the profile and of the law, and `nbytes()` says what the "
        "storages and the allocator say",
        bodies=(CACHE, DECODER),
        integers=("cache_bytes", "retained_bytes"),
    ),
    CheckInfo(
        "peak_bytes",
        "peak",
        "peak and retained bytes of every step, from the allocator, equal the baseline, and decode "
        "steps are steady",
        integers=("peak_bytes", "retained_bytes"),
    ),
    CheckInfo(
        "reset",
        "reset",
        "a cache that was used and then reset answers as a fresh one does",
        bodies=(CACHE, DECODER),
    ),
    CheckInfo(
        "rewind",
        "rewind",
        "answers after a rewind are correct, or the rewind raises because a key that it needs is "
        "gone",
        bodies=(CACHE, DECODER),
        integers=("rewound",),
    ),
    CheckInfo(
        "refusal",
        "refusal",
        "bad input gets a clear error and leaves the state as it was, or is answered rightly for "
        "what it stands for; good input is answered before and after",
    ),
    CheckInfo(
        "purity",
        "purity",
        "inputs are not modified, equal runs give equal bits, and batch rows do not mix",
    ),
    CheckInfo(
        "export",
        "export",
        "`torch.export`, with static and dynamic lengths, gives the eager answers; live bytes of "
        "the graph, and planned bytes, mutable buffers and size of a lowered program equal the "
        "baseline",
        integers=("live_bytes", "planned_bytes", "mutable_bytes", "pte_bytes"),
    ),
)

#: The names of the checks.
NAMES: tuple[str, ...] = tuple(info.name for info in CHECK_INFO)

#: Every integer that a check records, in the order of the columns.  An integer that several checks
#: record has the place of the last of them.
INTEGERS: tuple[str, ...] = tuple(
    reversed(dict.fromkeys(n for info in reversed(CHECK_INFO) for n in reversed(info.integers)))
)
