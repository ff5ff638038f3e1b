"""The router around its decisions: install and take away, switch, count, explain."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from harness.defects.router_calls import Call, band, judge
from harness.schemes.band import backends as band_backends
from harness.schemes.band.backends import FlashAttn, TorchFlash
from harness.schemes.band.decisions import Decision, Decisions, Reason
from harness.schemes.band.mask import is_known
from harness.schemes.band.routing import SWITCH, Router, install, routing, uninstall
from harness.subjects.own.routed import original


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
