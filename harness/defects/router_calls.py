"""Calls of an attention function as models make them, and what a router must do with each.

A scenario is a list of calls on one router, in order: a verdict may be kept from one to the next.
A call that must be passed on has to give the original's output bit for bit.  A routed call has to
be within the bound of `harness.reference.tolerance` from the float64 oracle.  The reason that the
router counts has to be the expected one, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from harness.law import Layer
from harness.reference import oracle, tolerance
from harness.schemes.band.decisions import Reason
from harness.schemes.band.routing import Router
from harness.subjects.own.routed import LayerModule

WINDOW, LENGTH = 8, 40


@dataclass
class Call:
    """One call: shapes of the inputs, the mask, further arguments, and the expected reason."""

    reason: Reason
    mask: Tensor | None = None
    window: int | None = WINDOW
    n_queries: int = LENGTH
    n_keys: int = LENGTH
    batch: int = 1
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    dtype: torch.dtype = torch.float32
    causal: bool = True
    options: dict[str, Any] = field(default_factory=dict)

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """q, k, v, the same for every call of these shapes."""
        generator = torch.Generator().manual_seed(0)
        shapes = (
            (self.batch, self.heads, self.n_queries, self.head_dim),
            (self.batch, self.kv_heads, self.n_keys, self.head_dim),
            (self.batch, self.kv_heads, self.n_keys, self.head_dim),
        )
        q, k, v = (torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes)
        return q.to(self.dtype), k.to(self.dtype), v.to(self.dtype)

    def module(self) -> LayerModule:
        return LayerModule(self.heads // self.kv_heads, self.window, is_causal=self.causal)


def judge(router: Router, call: Call) -> str:
    """Make the call and say what is wrong with its reason or its output; "" if nothing is."""
    before = router.decisions.by_reason()
    q, k, v = call.inputs()
    arguments = {"sliding_window": call.window, **call.options}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        got, _ = router(call.module(), q, k, v, call.mask, **arguments)
    after = router.decisions.by_reason()
    reasons = [r for r in after if after[r] != before.get(r, 0)]
    wrong = "" if reasons == [call.reason] else f"{reasons} instead of {call.reason!r}; "
    if call.reason is Reason.ROUTED:
        return wrong + _off_the_truth(got.transpose(1, 2), q, k, v, call)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        want, _ = router.original(call.module(), q, k, v, call.mask, **arguments)
    same = torch.equal(got.nan_to_num(), want.nan_to_num())
    return wrong + ("" if same else "not the original's output")


def _off_the_truth(got: Tensor, q: Tensor, k: Tensor, v: Tensor, call: Call) -> str:
    assert call.window is not None
    mask = Layer(window=call.window).mask(0, call.n_queries, call.n_keys)
    scale = call.options.get("scaling", call.head_dim**-0.5)
    q = q * scale * call.head_dim**0.5  # the oracle divides by sqrt(D)
    exact = oracle.attention64(q, k, v, mask)
    summed = oracle.attention64(q, k, v.abs(), mask)
    own = oracle.attention(q, k, v, mask)
    bound = tolerance.row_bound(own, exact, mask.sum(-1), call.head_dim, 1, summed)
    off = tolerance.row_error(got, exact) / bound
    return "" if bool((off <= 1).all()) else f"{float(off.max()):.3g} bounds off the law"


Scenario = Callable[[], Iterator[Call]]


def band(
    window: int = WINDOW, size: int = LENGTH, batch: int = 1, *, expanded: bool = True
) -> Tensor:
    """The plain band (batch, 1, size, size), bool; with stride 0 over the batch if expanded."""
    mask = Layer(window=window).mask(0, size, size).expand(batch, 1, size, size)
    return mask if expanded else mask.clone()


def additive(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A bool mask as an additive one: the lowest number of the dtype where a key is hidden."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


def _bands() -> Iterator[Call]:
    yield Call(Reason.ROUTED, band())
    yield Call(Reason.ROUTED, band(batch=3), batch=3)
    yield Call(Reason.ROUTED, band(batch=3, expanded=False), batch=3)
    yield Call(Reason.ROUTED, additive(band()))
    yield Call(Reason.ROUTED, torch.where(band(), 0.0, -torch.inf))
    yield Call(Reason.ROUTED, band(), kv_heads=4)
    yield Call(Reason.ROUTED, band(window=1), window=1)
    yield Call(Reason.ROUTED, band(size=300, window=130), window=130, n_queries=300, n_keys=300)


def _dtypes() -> Iterator[Call]:
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        yield Call(Reason.ROUTED, band(), dtype=dtype)
        yield Call(Reason.ROUTED, additive(band(), dtype), dtype=dtype)


def _scale() -> Iterator[Call]:
    yield Call(Reason.ROUTED, band(), options={"scaling": 1.0})
    yield Call(Reason.ROUTED, band(), options={"scaling": 0.1})


def _lengths() -> Iterator[Call]:
    for size in (WINDOW - 1, WINDOW):
        yield Call(Reason.SHORT, band(size=size), n_queries=size, n_keys=size)
    size = WINDOW + 1
    yield Call(Reason.ROUTED, band(size=size), n_queries=size, n_keys=size)


def _padding() -> Iterator[Call]:
    for columns in (slice(0, 5), slice(LENGTH - 5, LENGTH)):  # left, right
        for row in (0, 2):
            mask = band(batch=3, expanded=False)
            mask[row, :, :, columns] = False
            yield Call(Reason.NOT_BAND, mask, batch=3)
            yield Call(Reason.NOT_BAND, additive(mask), batch=3)


def _packing() -> Iterator[Call]:
    of = torch.arange(LENGTH) >= 19  # two sequences
    yield Call(Reason.NOT_BAND, band() & (of[:, None] == of[None, :]))


def _single_entries() -> Iterator[Call]:
    """One wrong entry, in rows that a router which reads only a few would skip, at every border."""
    for row in (11, 13, 27, 37):
        for column in (row - WINDOW, row - WINDOW + 1, row - 3, row, row + 1, LENGTH - 1, 0):
            mask = band(batch=2, expanded=False)
            mask[1, 0, row, column] ^= True
            yield Call(Reason.NOT_BAND, mask, batch=2)
    for value in (-1e4, 1e-3, torch.nan):  # neither 0 (visible) nor blocked
        mask = additive(band())
        mask[0, 0, 27, 22 if value > 0 else 30] = value
        yield Call(Reason.NOT_BAND, mask)


def _other_masks() -> Iterator[Call]:
    for window in (WINDOW - 1, WINDOW + 1, LENGTH):
        yield Call(Reason.NOT_BAND, band(window))
    yield Call(Reason.NOT_BAND, band() | band().transpose(-1, -2), causal=False)  # both sides
    yield Call(Reason.NOT_BAND, additive(band()).requires_grad_())  # a bias that is learned
    yield Call(Reason.NOT_BAND, band()[0])  # three axes: what the first one means is unclear


def _edited() -> Iterator[Call]:
    """A mask that is edited between two calls, by itself and through a view."""
    for through_a_view in (False, True):
        mask = band(expanded=False)
        edited = mask[0] if through_a_view else mask
        yield Call(Reason.ROUTED, mask)
        edited[..., 20, 3] = True
        yield Call(Reason.NOT_BAND, mask)
        edited[..., 20, 3] = False
        yield Call(Reason.ROUTED, mask)


def _asked_for_another_window() -> Iterator[Call]:
    mask = band(expanded=False)
    yield Call(Reason.ROUTED, mask)
    yield Call(Reason.NOT_BAND, mask, window=2 * WINDOW)
    yield Call(Reason.ROUTED, mask)
    mask = band(2 * WINDOW, expanded=False)
    yield Call(Reason.NOT_BAND, mask)
    yield Call(Reason.ROUTED, mask, window=2 * WINDOW)


def _address_used_again() -> Iterator[Call]:
    """A mask is freed, and another is made at its address."""
    wide = band(WINDOW + 1, expanded=False)
    for _ in range(100):
        mask = band(expanded=False)
        at = id(mask)
        yield Call(Reason.ROUTED, mask)
        del mask
        again = wide.clone()
        used_again = id(again) == at
        yield Call(Reason.NOT_BAND, again)
        if used_again:
            return


def _cached() -> Iterator[Call]:
    decode = Layer(window=WINDOW).mask(LENGTH - 1, 1, LENGTH)[None, None]
    yield Call(Reason.DECODE, decode, n_queries=1)
    yield Call(Reason.DECODE, decode[..., -WINDOW:], n_queries=1, n_keys=WINDOW)
    chunk = Layer(window=WINDOW).mask(LENGTH - 12, 12, LENGTH)[None, None]
    yield Call(Reason.CACHED, chunk, n_queries=12)
    yield Call(Reason.CACHED, chunk[..., -19:], n_queries=12, n_keys=19)


def _layers() -> Iterator[Call]:
    yield Call(Reason.FULL, band(LENGTH), window=None)
    yield Call(Reason.HEAD_DIM, band(), head_dim=512)
    yield Call(Reason.ROUTED, band(), head_dim=256)
    bias = torch.zeros(1, 4, LENGTH, LENGTH)
    yield Call(Reason.EXTRA, band(), options={"position_bias": bias})
    yield Call(Reason.DROPOUT, band(), options={"dropout": 0.5})


def _unmasked() -> Iterator[Call]:
    """Without a mask the original sees every earlier key, or every key where it is not causal."""
    yield Call(Reason.NO_MASK)
    yield Call(Reason.BIDIRECTIONAL, causal=False)
    yield Call(Reason.BIDIRECTIONAL, options={"is_causal": False})
    yield Call(Reason.NO_MASK, causal=False, options={"is_causal": True})


def _unmasked_on_request() -> Iterator[Call]:
    """For a router that applies the window without a mask if the call is causal."""
    yield Call(Reason.ROUTED)
    yield Call(Reason.BIDIRECTIONAL, causal=False)
    yield Call(Reason.BIDIRECTIONAL, options={"is_causal": False})
    yield Call(Reason.ROUTED, causal=False, options={"is_causal": True})
    yield Call(Reason.ROUTED, options={"position_ids": torch.arange(3, 3 + LENGTH)[None]})
    packed = torch.arange(LENGTH) % 19
    yield Call(Reason.NOT_BAND, options={"position_ids": packed[None]})
    starts = torch.tensor([0, 19, LENGTH], dtype=torch.int32)
    yield Call(Reason.NOT_BAND, options={"cu_seq_lens_q": starts, "cu_seq_lens_k": starts})


#: Scenarios for a router as it is installed, and for one that is asked to route without masks.
SCENARIOS: dict[str, Scenario] = {
    "bands": _bands,
    "dtypes": _dtypes,
    "scale": _scale,
    "lengths": _lengths,
    "padding": _padding,
    "packing": _packing,
    "single entries": _single_entries,
    "other masks": _other_masks,
    "edited": _edited,
    "another window": _asked_for_another_window,
    "address used again": _address_used_again,
    "cached": _cached,
    "layers": _layers,
    "unmasked": _unmasked,
}
ON_REQUEST: dict[str, Scenario] = {"unmasked on request": _unmasked_on_request}


def failures(make: Callable[..., Router]) -> dict[str, str]:
    """The scenarios that a router breaks, with the first thing wrong in each.

    make: a router's class, or a function that makes one, with the arguments of `Router`.
    """
    from harness.subjects.own.routed import original

    out: dict[str, str] = {}
    for scenarios, unmasked in ((SCENARIOS, False), (ON_REQUEST, True)):
        for name, scenario in scenarios.items():
            router = make(original(), unmasked=unmasked)
            numbers = count()
            for call in scenario():  # enumerate() would keep the call, and its mask, alive
                number = next(numbers)
                wrong = _judged(router, call)
                del call
                if wrong:
                    out.setdefault(name, f"call {number}: {wrong}")
    return out


def _judged(router: Router, call: Call) -> str:
    try:
        return judge(router, call)
    except (RuntimeError, ValueError, IndexError) as error:
        return f"{type(error).__name__}: {error}"
