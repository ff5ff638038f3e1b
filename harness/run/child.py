"""The child process of `harness check`: runs a target's checks and reports them line by line.

It may hang, crash or be killed at any point; `harness.run.parent` watches it.  Messages are JSON
lines on a pipe of their own, since stdout belongs to the subject:

- ready; then refused (message), which ends it, or, from the first child alone, plan (subject,
  version, count) and `count` times item (record);
- begin (number) and record (number, record) for each check, in order from number `first` on; end.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from typing import Any

#: The longest line on the pipe, in bytes.
MAX_LINE = 1 << 20


def main(pipe: int, target: str, chosen: dict[str, str], first: int) -> None:
    """Run the items of the plan from number `first` on."""
    faulthandler.register(signal.SIGUSR1)  # asked where it is, it says so on stderr
    with os.fdopen(pipe, "w", encoding="utf-8", buffering=1) as out:

        def say(**message: Any) -> None:
            out.write(json.dumps(message) + "\n")

        import torch

        from harness.results import record as records
        from harness.run import registry
        from harness.run.job import execute, origin
        from harness.run.plan import Selection, SelectionError

        torch.set_num_threads(1)
        say(kind="ready")
        try:
            loaded = registry.load(target)
            items = Selection(**chosen).items(loaded)
        except (registry.TargetError, registry.NotInstalled, SelectionError) as error:
            say(kind="refused", message=str(error))
            return
        where = origin(loaded)
        started = [
            records.start(where, "", f"{check}::{case.id}", check, case) for check, case in items
        ]
        if not first:
            say(
                kind="plan",
                subject=where.subject,
                version=where.subject_version,
                count=len(items),
            )
            for record in started:
                say(kind="item", record=record.to_json())
        for number in range(first, len(items)):
            say(kind="begin", number=number)
            record = execute(loaded, started[number], items[number][1])
            line = record.to_json()
            if len(line) > MAX_LINE // 2:  # quoted once more it must fit; the verdict goes first
                record.rows, record.errors, record.neighbours = [], [], {}
                line = record.to_json()
            say(kind="record", number=number, record=line)
        say(kind="end")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), int(sys.argv[4]))
