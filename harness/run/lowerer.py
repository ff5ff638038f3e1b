"""A process that lowers programs and does nothing else: ``python -m harness.run.lowerer``.

The names in a program, and so its bytes, depend on what was converted before it in the same
process.  So a worker that runs checks leaves lowering to this one, which it starts once, when the
first program is missing.  It reads a line for each case, "target<TAB>case", answers with a line
when it is done, and ends with its input: whatever ends the worker ends it, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from functools import cache
from typing import IO

from harness.cases.case import Case, parse
from harness.export.program_cache import made_elsewhere
from harness.run import registry
from harness.run.target import Target


def prepare(target: Target, case: Case) -> None:
    """Lower the program of a case, if the subject has one and it is not in the cache.

    What fails here fails again in the check, where it is judged.
    """
    if "lowered" in target.offers:
        with made_elsewhere(lambda: _here().lower(target, case)), suppress(Exception):
            target.subject().lowered(case)


class _Lowerer:
    """The process, from the side of the worker."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", __name__]
        pipe = subprocess.PIPE
        self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def lower(self, target: Target, case: Case) -> None:
        """Lower the program of a case, and wait for it.  A process that died lowers nothing."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        with suppress(OSError):
            self._child.stdin.write(f"{target.target}\t{case.id}\n")
            self._child.stdin.flush()
            self._child.stdout.readline()


@cache
def _here() -> _Lowerer:
    """The one of this process."""
    return _Lowerer()


def serve(asked: IO[str], answers: IO[str]) -> None:
    """Lower the program of each case that is asked for, until there is no more input."""
    for line in asked:
        name, _, case = line.rstrip("\n").partition("\t")
        with suppress(Exception):
            registry.load(name).subject().lowered(parse(case))
        answers.write("\n")
        answers.flush()


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    # What is printed on the way must not read like an answer.
    real = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, real)
