"""The child process of `harness check`: runs a target's checks and reports them line by line.

It may hang, crash or be killed at any point; `harness.run.parent` watches it.  Messages are JSON
lines on a pipe of their own, since stdout belongs to the subject.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from harness.run.plan import Selection, SelectionError


def main(pipe: int, target: str, selection: Selection, first: int) -> None:
    """Run the items of the plan from number `first` on."""
    with os.fdopen(pipe, "w", encoding="utf-8", buffering=1) as out:

        def say(**message: Any) -> None:
            out.write(json.dumps(message) + "\n")

        import torch

        from harness.results import record as records
        from harness.run import registry
        from harness.run.job import execute, origin

        torch.set_num_threads(1)
        say(kind="ready")
        try:
            loaded = registry.load(target)
            items = selection.items(loaded)
        except (registry.TargetError, registry.NotInstalled, SelectionError) as error:
            say(kind="refused", message=str(error))
            return
        where = origin(loaded)
        say(
            kind="plan",
            subject=where.subject,
            version=where.subject_version,
            items=[
                records.start(where, "", f"{check}::{case.id}", check, case).to_json()
                for check, case in items
            ],
        )
        for number, (check, case) in list(enumerate(items))[first:]:
            say(kind="begin", number=number)
            record = records.start(where, "", f"{check}::{case.id}", check, case)
            say(kind="record", number=number, record=execute(loaded, record, case).to_json())
        say(kind="end")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], Selection(**json.loads(sys.argv[3])), int(sys.argv[4]))
