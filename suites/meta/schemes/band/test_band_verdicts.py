"""The router's verdicts: what a call and a mask must be, and which kernel is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.defects.router_calls import additive, band
from harness.schemes.band import backends as band_backends
from harness.schemes.band import mask as band_mask
from harness.schemes.band.backends import KERNELS, Banded, TorchFlash, sides
from harness.schemes.band.decisions import Reason
from harness.schemes.band.mask import forget, is_band, is_known, read_band
from harness.schemes.band.routing import Router
from harness.subjects.own.routed import LayerModule, original
from harness.subjects.torch.fa2 import TorchFa2


def ones(*shape: int) -> Tensor:
    return torch.ones(shape)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, Reason.ROUTED),
        ({"v": ones(2, 2, 40, 8)}, Reason.SHAPES),
        ({"q": ones(1, 4, 40, 16)}, Reason.SHAPES),
        ({"q": ones(2, 2, 40, 16)}, Reason.SHAPES),
        ({"q": ones(2, 6, 40, 16)}, Reason.SHAPES),
        ({"k": ones(2, 2, 40, 16).double()}, Reason.NO_KERNEL),
        ({"v": ones(2, 2, 40, 16).double()}, Reason.NO_KERNEL),
        ({"mask": additive(band(), torch.float16)}, Reason.NOT_BAND),
        ({"mask": band().expand(1, 3, 40, 40)}, Reason.NOT_BAND),
        ({"mask": band().expand(3, 1, 40, 40)}, Reason.NOT_BAND),
        ({"mask": band().to("meta")}, Reason.TRACED),
        ({"q": ones(2, 4, 40, 16).as_subclass(type("Own", (Tensor,), {}))}, Reason.TRACED),
        ({"sliding_window": 0}, Reason.FULL),
        ({"sliding_window": True, "mask": band(1)}, Reason.FULL),
        ({"softcap": 30.0}, Reason.EXTRA),
        ({"s_aux": ones(4)}, Reason.EXTRA),
        ({"cache": object()}, Reason.EXTRA),
    ],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else x.name,
)
def test_what_a_call_must_be(change: dict[str, object], reason: Reason) -> None:
    """One thing is changed in a call that is otherwise routed."""
    given: dict[str, Any] = {
        "q": ones(2, 4, 40, 16),
        "k": ones(2, 2, 40, 16),
        "v": ones(2, 2, 40, 16),
        "mask": band(),
        "sliding_window": 8,
        **change,
    }
    tensors = [given.pop(name) for name in ("q", "k", "v", "mask")]
    decision, kernel = Router(original()).decide(LayerModule(2, 8), *tensors, given)
    assert decision.reason is reason
    assert (kernel is not None) == decision.routed


def test_a_verdict_is_kept_with_the_mask_until_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = []

    def counted(mask: Tensor, window: int) -> bool:
        readings.append(window)
        return read_band(mask, window)

    monkeypatch.setattr(band_mask, "read_band", counted)
    mask = band(expanded=False)
    assert [is_band(mask, 8), is_band(mask, 8), is_band(mask, 9)] == [True, True, False]
    assert readings == [8, 9]
    mask.logical_or_(mask)  # an edit that changes no entry is still an edit
    assert is_band(mask, 8)
    assert readings == [8, 9, 8]
    mask.set_(band(expanded=False))  # other memory under the same tensor
    assert is_band(mask, 8)
    assert len(readings) == 4
    forget(mask)
    assert not is_known(mask, 8)


def test_a_verdict_does_not_outlive_the_memory_that_was_read() -> None:
    """Other memory, or the same memory with other strides: torch counts neither as an edit."""
    mask = band(expanded=False)
    assert is_band(mask, 8)
    mask.data = band(9, expanded=False)
    assert not is_band(mask, 8)
    assert is_band(mask, 9)
    version = mask._version
    mask.data = mask.data.transpose(-1, -2)
    assert mask._version == version
    assert not is_band(mask, 9)


def test_an_expanded_mask_is_read_once_and_never_made() -> None:
    mask = band(batch=64)
    assert mask.stride(0) == 0
    assert len(list(band_mask._planes(mask))) == 1
    assert len(list(band_mask._planes(mask.clone()))) == 64


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(1, 1, 8, 9, dtype=torch.bool),
        torch.ones(1, 1, 0, 0, dtype=torch.bool),
        torch.ones(8, 8, dtype=torch.bool),
        band().long(),
        additive(band()) * 0.5,  # half of the lowest number does not hide a key
    ],
    ids=["not square", "empty", "two axes", "integers", "halved"],
)
def test_what_is_no_band(mask: Tensor) -> None:
    assert not read_band(mask, 8)


@pytest.mark.parametrize("window", [1, 7, 8, 300, 600])
def test_every_single_entry_counts(window: int) -> None:
    """Rows are read in blocks of 256: entries on both sides of a border, in both kinds of mask."""
    size, generator = 520, torch.Generator().manual_seed(window)
    mask = band(window, size, expanded=False)
    lows = additive(mask)
    assert read_band(mask, window)
    assert read_band(lows, window)
    picks = torch.randint(size, (20, 2), generator=generator).tolist()
    for row, column in [*picks, (255, 255), (256, 255), (255, 256), (519, 0), (0, 519)]:
        mask[0, 0, row, column] ^= True
        assert not read_band(mask, window)
        mask[0, 0, row, column] ^= True
        kept = lows[0, 0, row, column].item()
        for wrong in (-1.0, torch.nan):
            lows[0, 0, row, column] = wrong
            assert not read_band(lows, window)
        lows[0, 0, row, column] = kept
    assert read_band(mask, window)
    assert read_band(lows, window)


def test_windows_as_flash_attention_counts_them() -> None:
    assert sides(1024) == (1023, 0)
    assert sides(1) == (0, 0)


def test_the_kernels_are_tried_from_the_fastest() -> None:
    assert [kernel.name for kernel in KERNELS] == ["flash_attn", "torch.fa2", "banded"]
    q = torch.zeros(1, 2, 4, 16)
    assert Banded().refuses(q, q, q) == ""
    assert Banded().refuses(q.int(), q.int(), q.int())
    assert TorchFlash().refuses(q, q, q)


@pytest.mark.parametrize(
    ("dtype", "width", "says"),
    [
        (torch.float32, 256, "torch.float32 is not half precision"),
        (torch.bfloat16, 512, "head_dim 512 is not a multiple of 8 up to 256"),
        (torch.float16, 20, "head_dim 20 is not a multiple of 8 up to 256"),
        (torch.bfloat16, 256, "needs CUDA"),
    ],
)
def test_flash_attention_is_not_asked_for_what_it_cannot_do(
    dtype: torch.dtype, width: int, says: str
) -> None:
    q = torch.zeros(1, 2, 4, width, dtype=dtype)
    assert band_backends._not_for_flash(q, q, q) == says
    if width > 20:
        assert "differ in head_dim" in band_backends._not_for_flash(q.bfloat16()[..., :64], q, q)


def test_a_subject_for_cuda_says_so() -> None:
    from harness.cases.case import parse
    from harness.checks import run_check
    from harness.results.finding import Status

    finding = run_check(TorchFa2, "values", parse("mistral/prefill-3w+5/bfloat16/b1"))
    if torch.cuda.is_available():
        assert finding.status is Status.PASS
    else:
        assert (finding.status, finding.message) == (Status.NOT_CLAIMED, "needs CUDA")
