"""The canary: known patterns that the probe must read to the byte before it is trusted."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from harness.memory import events
from harness.memory.events import Ledger, ProbeError

MEBI = 1 << 20
ODD = 4097  # not a multiple of any alignment, so that rounding up shows

_passed: set[int] = set()  # ids of processes that passed: a fork starts over


def check_probe() -> None:
    """Test the CPU probe on known patterns, once per process.

    Raises ProbeError with the figure that was read and the right one: a broken probe, or a release
    of torch with another private API, must not lead to a pass.
    """
    if os.getpid() in _passed:
        return
    run_canary()
    _passed.add(os.getpid())


def run_canary() -> None:
    """The canary itself, whether or not it has passed before; raises as `check_probe` does."""
    for _ in range(2):  # the second reading must not depend on what the first left behind
        _check_pattern()
    _check_workspace()


def _allocate() -> Tensor:
    kept = torch.empty(MEBI, dtype=torch.uint8)
    for _ in range(2):
        gone = torch.empty(ODD, dtype=torch.uint8)
        del gone
    return kept


def _check_pattern() -> None:
    """Allocate 1 MiB that stays and twice 4097 bytes, in turn; free a block from before."""
    old = [torch.empty(ODD, dtype=torch.uint8)]

    def pattern() -> Tensor:
        with events.step("all"):
            old.clear()
            return _allocate()

    # torch warns on stderr of the first free whose allocation it did not see.  That free happens
    # here, where the line can be dropped without losing another.
    with _silent_stderr():
        kept, ledger = _ledger(pattern)
    del kept
    if [s.name for s in ledger.steps] != ["all"]:
        raise ProbeError(f"the canary marked one step, the probe saw {len(ledger.steps)}")
    _require("peak", ledger.peak, MEBI + ODD)
    _require("peak of the step", ledger.steps[0].peak_bytes, MEBI + ODD)
    _require("allocated bytes", ledger.allocated, MEBI + 2 * ODD)
    _require("retained bytes", ledger.held, MEBI)
    _require("allocations", ledger.allocations, 3)


def _check_workspace() -> None:
    """A kernel's scratch memory counts: flash attention on the CPU takes some in one block."""
    q = torch.zeros(1, 1, 256, 32)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        out, ledger = _ledger(partial(scaled_dot_product_attention, q, q, q, is_causal=True))
    # Besides its output the kernel returns one float32 log-sum-exp a query.
    returned = out.nbytes + 4 * q.shape[2]
    if ledger.peak <= returned:
        raise ProbeError(
            f"the canary's flash attention shows no workspace: {ledger.peak:,} bytes read, "
            f"{returned:,} of them returned"
        )


def _ledger(fn: Callable[[], Tensor]) -> tuple[Tensor, Ledger]:
    result, log = events.record(fn)
    return result, events.add_up(log)


def _require(what: str, got: int, want: int) -> None:
    if got != want:
        raise ProbeError(f"the canary's {what} must read {want:,}, the probe read {got:,}")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Drop what native code writes to file descriptor 2."""
    kept = os.dup(2)
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(sink)
        os.close(kept)
