"""The routing benchmark: complete figures, ratios of one run, and memory below what it replaces."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from harness.bench import routing as bench
from harness.bench import routing_stack as stack
from harness.bench import routing_timing
from harness.bench.geometry import Geometry
from harness.bench.routing_timing import Rounds, interleaved

CPU = torch.device("cpu")


def test_a_layer_has_times_ratios_and_bytes(capsys: pytest.CaptureFixture[str]) -> None:
    figures = bench.layer(Geometry(512, window=64, head_dim=64), 2, CPU)
    assert figures["kernel"] == "banded"
    assert figures["device"].startswith("cpu")
    assert figures["band_test_of_masked"] > 0
    for kind in bench.KINDS:
        assert set(figures[kind]["seconds"]) == {"masked", "routed", "kernel"}
        assert figures[kind]["speedup"] > 0
        peak = figures[kind]["peak_bytes"]
        assert peak["routed"] == peak["kernel"] < peak["masked"]
    assert f"forward {figures['forward']['speedup']:.2f}x" in capsys.readouterr().err


def test_beyond_the_longest_mask_the_kernel_stands_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.MASKED_UP_TO, "cpu", 256)
    figures = bench.layer(Geometry(512, window=64, head_dim=64), 1, CPU)
    assert set(figures["forward"]["seconds"]) == {"kernel"}
    assert "speedup" not in figures["forward"]
    figures = bench.layer(Geometry(512, window=64, head_dim=64), 1, CPU, long=True)
    assert set(figures["forward"]["seconds"]) == {"masked", "routed", "kernel"}


def test_the_stack_is_five_sliding_layers_and_a_global_one() -> None:
    shape = stack.model()
    assert shape.layer_types.count("sliding_attention") == 5
    assert (shape.window, shape.head_dim, shape.global_head_dim) == (1024, 256, 512)
    small = replace(shape, window=16, head_dim=16, global_head_dim=32)
    figures = stack.figures(stack.build("float32", CPU, small), 64, 1)
    # A forward of the network: five layers routed, the global one passed on.
    assert (figures["routed_calls"], figures["passed_on"]) == (5, 1)
    assert figures["forward"]["speedup"] > 0
    assert figures["training step"]["seconds"].keys() == {"masked", "routed"}


def test_longer_calls_get_fewer_rounds() -> None:
    assert [bench.rounds(31, n) for n in (1024, 2048, 4096, 32768)] == [31, 31, 15, 3]
    assert bench.rounds(1, 8192) == 1


def test_a_quiet_ratio_leaves_out_the_rounds_that_were_disturbed() -> None:
    seconds = {"masked": [4.0, 4.0, 8.0], "routed": [1.0, 4.0, 2.0]}
    waited = {"masked": [0.0, 0.0, 0.9], "routed": [0.01, 0.8, 0.0]}
    found = Rounds(seconds, waited)
    assert found.speedup("masked", "routed") == {
        "speedup": 4.0,
        "quiet_rounds": 1,
        "quiet_speedup": 4.0,
    }
    assert found.figures()["waited"] == {"masked": 0.0, "routed": 0.01}
    uncounted = Rounds(seconds, {"masked": [], "routed": []})
    assert uncounted.speedup("masked", "routed")["quiet_rounds"] == 3
    assert "waited" not in uncounted.figures()


def test_a_round_that_was_not_counted_shifts_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that ends while the system's figures are read leaves its round without one."""
    said = iter([0.0, 0.0, None, 0.0, 0.0, 1e9, 0.0, 0.0])  # before and after each of four calls
    monkeypatch.setattr(routing_timing, "waiting", lambda: next(said))
    found = interleaved({"a": lambda: None, "b": lambda: None}, 2, CPU)
    assert [[part is None for part in parts] for parts in found.waited.values()] == [
        [False, False],
        [True, False],
    ]
    assert found.waited["a"][1] is not None
    assert found.waited["a"][0] == 0.0
    assert found.waited["a"][1] > 1e9
    same = {"a": [4.0, 4.0, 8.0], "b": [1.0, 2.0, 2.0]}
    rounds = Rounds(same, {"a": [0.0, 0.9, 0.0], "b": [None, 0.0, 0.0]})
    assert rounds.speedup("a", "b") == {"speedup": 4.0, "quiet_rounds": 1, "quiet_speedup": 4.0}
    assert rounds.figures()["waited"] == {"a": 0.0, "b": 0.0}
    nowhere = Rounds(same, {"a": [None] * 3, "b": [None] * 3})
    assert nowhere.speedup("a", "b")["quiet_rounds"] == 3
    assert "waited" not in nowhere.figures()


def test_a_round_that_does_not_count_goes_first() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    found = interleaved(calls, 2, CPU)
    assert order == ["a", "b"] * 3
    assert {len(times) for times in found.seconds.values()} == {2}


@pytest.mark.parametrize("repeats", [0, True])
def test_repeats_must_be_positive(repeats: int) -> None:
    with pytest.raises(ValueError, match="repeats"):
        bench.run(repeats)
