"""The kernel beside its peers: fractions of a product's speed, and reasons where there is none."""

from __future__ import annotations

import time
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from harness.bench import routing_onnx, routing_peers
from harness.bench.geometry import Geometry
from harness.bench.routing_peers import ceilings, cpu_seconds, entry, named, needed_pairs, tensors
from harness.bench.timing import threads
from harness.law import Layer

SMALL = Geometry(256, 32, heads=4, kv_heads=2, head_dim=16)


@pytest.mark.parametrize(("length", "window"), [(7, 3), (5, 5), (4, 9), (1, 1)])
def test_needed_pairs_are_those_of_the_law(length: int, window: int) -> None:
    mask = Layer(window=window).mask(0, length, length)
    assert needed_pairs(length, window) == int(mask.sum())


def test_an_entry_has_a_fraction_or_a_reason_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Tensor) -> Tensor:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(routing_peers, "_flex", lambda _: broken)
    monkeypatch.setattr(routing_onnx, "find_spec", lambda _: None)
    found = entry(SMALL, 1)
    for kind in ("forward", "backward"):
        assert set(found[kind]) == {"banded", "flex_attention", "onnxruntime", "masked"}
        assert found[kind]["banded"] > 0
        assert found[kind]["masked"] > 0
        assert found[kind]["flex_attention"] == "RuntimeError: no compiler"
        assert found[kind]["onnxruntime"] == "not installed: onnxruntime, onnx"
        assert 0 < found["ceiling"][kind] < 1
    monkeypatch.setattr(routing_peers, "_MASKED_UP_TO", 128)
    assert named(SMALL)["masked"] == "too long; see --long"
    assert callable(named(SMALL, long=True)["masked"])


def test_a_ceiling_is_what_a_block_needs_of_what_it_computes() -> None:
    q = tensors(SMALL)[0]
    with threads(1):
        found = ceilings(SMALL, q)
    assert found == {"forward": round(32 / 63, 3), "backward": round(32 / 95, 3)}


def test_seconds_are_of_the_cpu_and_not_of_the_clock() -> None:
    rest = 0.05
    assert cpu_seconds(lambda: time.sleep(rest)) < rest


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnxruntime", "onnx")), reason="not installed"
)
def test_onnxruntime_counts_the_window_as_we_do() -> None:
    q, k, v, _ = tensors(SMALL)
    calls = named(SMALL)
    ours, theirs = (calls[name] for name in ("banded", "onnxruntime"))
    assert callable(ours)
    assert callable(theirs)
    torch.testing.assert_close(ours(q, k, v), theirs(q, k, v))


def test_onnxruntime_takes_float32_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_onnx, "find_spec", lambda _: True)
    half = Geometry(256, 32, dtype="bfloat16")
    assert routing_onnx.attention(half) == "not for bfloat16"
