"""The router around its decisions: install and take away, switch, count, explain, verdicts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.defects.router_calls import Call, additive, band, judge
from harness.schemes.band import backends as band_backends
from harness.schemes.band import mask as band_mask
from harness.schemes.band.backends import KERNELS, Banded, FlashAttn, TorchFlash, sides
from harness.schemes.band.decisions import Decision, Decisions, Reason
from harness.schemes.band.mask import forget, is_band, is_known, read_band
from harness.schemes.band.routing import SWITCH, Router, install, routing, uninstall
from harness.subjects.own.routed import LayerModule, original
from harness.subjects.torch.fa2 import TorchFa2


def test_install_replaces_the_function_and_uninstall_puts_it_back() -> None:
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    router = install()
    try:
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is router
        assert router.original is before
        with pytest.raises(RuntimeError, match="sdpa is routed already"):
            install()
    finally:
        uninstall()
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before
    uninstall()  # nothing to take away
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_a_local_function_of_the_user_comes_back() -> None:
    def mine(*_: object, **__: object) -> None:
        raise AssertionError("not called here")

    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    ALL_ATTENTION_FUNCTIONS["sdpa"] = mine
    try:
        with routing() as router:
            assert router.original is mine
        assert ALL_ATTENTION_FUNCTIONS["sdpa"] is mine
    finally:
        ALL_ATTENTION_FUNCTIONS["sdpa"] = before


def test_the_router_leaves_when_the_model_raises() -> None:
    before = ALL_ATTENTION_FUNCTIONS["sdpa"]
    with pytest.raises(KeyError), routing():
        raise KeyError("from within")
    assert ALL_ATTENTION_FUNCTIONS["sdpa"] is before


def test_mistakes_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"name must be one of .*sdpa.*, got 'sdqa'"):
        install("sdqa")
    monkeypatch.setenv(SWITCH, "off")
    with pytest.raises(ValueError, match="HARNESS_BAND_ROUTING must be 0 or 1, got 'off'"):
        install()


def test_the_switch_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    router = Router(original())
    for value, reason in (("1", Reason.ROUTED), ("0", Reason.OFF), ("1", Reason.ROUTED)):
        monkeypatch.setenv(SWITCH, value)
        assert judge(router, Call(reason, band())) == ""


def test_decisions_are_counted_and_explained() -> None:
    router = Router(original())
    for _ in range(2):
        assert judge(router, Call(Reason.ROUTED, band())) == ""
    assert judge(router, Call(Reason.FULL, band(40), window=None)) == ""
    assert (router.decisions.routed, router.decisions.passed_on) == (2, 1)
    lines = router.explain().splitlines()
    assert lines[0] == "2 calls routed, 1 passed on unchanged"
    assert lines[1].strip() == "2  routed: plain causal band: windowed kernel (banded)"
    assert lines[2].strip() == "1  passed on: no sliding window"
    router.decisions.clear()
    assert router.decisions.counts.total() == 0


def test_each_reason_reads_differently() -> None:
    assert len({str(reason) for reason in Reason}) == len(Reason)
    decisions = Decisions()
    for reason in Reason:
        decisions.add(Decision(reason))
    assert all(str(reason) in decisions.explain() for reason in Reason)


@pytest.mark.parametrize(
    ("package", "why"),
    [
        ("raise ImportError('undefined symbol: _ZN3c10')", "does not load: undefined symbol"),
        ("", "does not load: module 'flash_attn' has no attribute 'flash_attn_func'"),
        ("def flash_attn_func(): ...", "CUDA"),
    ],
)
def test_a_flash_attn_that_does_not_load_refuses(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, why: str
) -> None:
    (tmp_path / "flash_attn.py").write_text(package)
    monkeypatch.syspath_prepend(str(tmp_path))
    band_backends._flash_attn.cache_clear()
    try:
        q = torch.zeros(1, 1, 4, 8, dtype=torch.bfloat16)
        assert why in FlashAttn().refuses(q, q, q)
    finally:
        band_backends._flash_attn.cache_clear()
        sys.modules.pop("flash_attn", None)


def test_without_a_kernel_the_refusals_are_told() -> None:
    router = Router(original(), [FlashAttn(), TorchFlash()])
    assert judge(router, Call(Reason.NO_KERNEL, band())) == ""
    if not torch.cuda.is_available():
        assert "flash_attn: " in router.explain()
        assert "torch.fa2: " in router.explain()


def test_inference_mode_reads_the_mask_each_time() -> None:
    """Edits of such a tensor are not counted, so no verdict may be kept."""
    router = Router(original())
    with torch.inference_mode():
        mask = band().clone()
        assert judge(router, Call(Reason.ROUTED, mask)) == ""
        assert not is_known(mask, 8)
        mask[0, 0, 20, 3] = True
        assert judge(router, Call(Reason.NOT_BAND, mask)) == ""


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_autocast_decides_the_dtype_of_the_answer(dtype: torch.dtype) -> None:
    """It makes the original compute float32 in bfloat16, but leaves float64 and bfloat16 alone."""
    recast = dtype == torch.float32
    call = Call(Reason.NO_KERNEL if recast else Reason.ROUTED, band(), dtype=dtype)
    router, (q, k, v) = Router(original()), call.inputs()
    with torch.autocast("cpu", torch.bfloat16):
        got, want = (
            f(call.module(), q, k, v, call.mask, sliding_window=8)[0]
            for f in (router, router.original)
        )
    assert got.dtype == want.dtype
    assert router.decisions.by_reason() == {call.reason: 1}
    assert ("autocast from torch.float32" in router.explain()) == recast


def test_functional_transforms_are_passed_on() -> None:
    router = Router(original())
    call = Call(Reason.TRACED, band())
    q, k, v = call.inputs()

    def total(x: Tensor) -> Tensor:
        out, _ = router(call.module(), x, k, v, call.mask, sliding_window=8)
        return out.sum()

    torch.func.grad(total)(q)
    assert router.decisions.by_reason() == {Reason.TRACED: 1}


@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_traced_graph_is_passed_on(mode: str) -> None:
    router, call = Router(original()), Call(Reason.TRACED, band())
    q, k, v = call.inputs()

    def attend(x: Tensor) -> Tensor:
        return router(call.module(), x, k, v, call.mask, sliding_window=8)[0]

    graph = make_fx(attend, tracing_mode=mode, _allow_non_fake_inputs=True)(q)
    want, _ = router.original(call.module(), q, k, v, call.mask, sliding_window=8)
    assert torch.equal(graph(q), want)
    assert router.decisions.by_reason() == {Reason.TRACED: 1}


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
