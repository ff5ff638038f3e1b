"""What measuring memory costs: a call under the memory probe against the bare call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from harness.bench import timing
from harness.law import Layer
from harness.memory import check_probe, measure
from harness.reference import oracle


def run(repeats: int = 21) -> dict[str, Any]:
    """Time of `measure(call, warmup=0)` divided by that of `call()`, per workload.

    Bare and measured calls take turns in one process, on one thread.  The ratio is taken pair by
    pair, and then its median: whatever slows the machine for a while slows both.  Returns
    ``{"torch", "threads", "repeats", "workloads": {name: {"bare_s", "measured_s", "ratio"}}}``,
    where the figures of a workload are medians.  The decode step, of many small operations, is the
    worst case.

    Raises ValueError for repeats < 1, and ProbeError if memory cannot be measured.
    """
    timing.check_repeats(repeats)
    with timing.threads(1):
        check_probe()
        timed = {name: _compare(call, repeats) for name, call in _workloads().items()}
    return {"torch": torch.__version__, "threads": 1, "repeats": repeats, "workloads": timed}


def _workloads() -> dict[str, Callable[[], Tensor]]:
    n, window = 1024, 64
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, n, 64, generator=generator) for _ in range(3))
    mask = Layer(window=window).mask(0, n, n)
    last = Layer(window=window).mask(n - 1, 1, n)
    return {
        "dense prefill 1024": lambda: oracle.attention(q, k, v, mask),
        "flash prefill 1024": lambda: scaled_dot_product_attention(q, k, v, is_causal=True),
        "decode step at 1024": lambda: oracle.attention(q[:, :, -1:], k, v, last),
    }


def _compare(call: Callable[[], Tensor], repeats: int) -> dict[str, float]:
    call()
    pairs = [(_time(call), _time(lambda: measure(call, warmup=0))) for _ in range(repeats)]
    return {
        "bare_s": statistics.median(bare for bare, _ in pairs),
        "measured_s": statistics.median(measured for _, measured in pairs),
        "ratio": statistics.median(measured / bare for bare, measured in pairs),
    }


def _time(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
