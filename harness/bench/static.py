"""This package's static scheme against ExecuTorch's I/O manager: same model, shapes and feeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.bench import timing
from harness.cases.case import Case
from harness.cases.models import tiny
from harness.cases.schedules import Feed, Schedule, chunks
from harness.checks.drive import open_decoder
from harness.run import registry

OURS, THEIRS = "harness.static", "executorch.static"
WINDOW = 256


def run(repeats: int = 31) -> dict[str, Any]:
    """Median times of a one-token step and of a chunk of 64 past the wrap, and their ratios.

    The decoder has two layers, hidden size 32 and window 256, and runs in float32 on one thread.
    Both run eagerly, so that only the handling of caches and masks differs.  If executorch is not
    installed, the result says so instead.  Raises ValueError for repeats < 1.
    """
    timing.check_repeats(repeats)
    with timing.threads(1):
        out: dict[str, Any] = timing.environment(repeats)
        for what, feeds in (("decode step", 1), ("chunk of 64", 64)):
            steps = _steps(feeds, repeats)
            if THEIRS not in steps:
                return {**out, "not installed": "executorch"}
            seconds = timing.interleaved(steps, repeats)
            out[what] = {
                "seconds": timing.medians(seconds),
                "ours_over_theirs": timing.ratio(seconds, OURS, THEIRS),
            }
        return out


def _steps(n: int, repeats: int) -> dict[str, Callable[[], Tensor]]:
    model = replace(tiny("mistral"), name="mistral", window=WINDOW)
    before = (Feed(n), *chunks(2 * WINDOW // n * n, (n,)))
    schedule = Schedule("bench", before + (Feed(n),) * (repeats + 2))
    case = Case(model, schedule)
    steps: dict[str, Callable[[], Tensor]] = {}
    for name in (OURS, THEIRS):
        try:
            decoder = open_decoder(registry.load(name).subject(), case)
        except registry.NotInstalled:
            continue
        tokens = torch.arange(n)[None] % case.vocab
        for _ in before:
            decoder.feed(tokens)
        steps[name] = lambda feed=decoder.feed, tokens=tokens: feed(tokens)  # type: ignore[misc]
    return steps
