"""Benchmarks: their ratios are of one run, and their figures are complete."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from harness.bench import BENCHMARKS, decode, static, timing
from harness.cli.main import app


def test_a_ratio_is_taken_round_by_round() -> None:
    # In the second round everything is ten times slower, which the ratio does not show.
    seconds = {"a": [2.0, 20.0, 2.0], "b": [1.0, 10.0, 1.0]}
    assert timing.ratio(seconds, "a", "b") == 2.0
    assert timing.medians(seconds) == {"a": 2.0, "b": 1.0}


def test_the_first_round_does_not_count_and_calls_take_turns() -> None:
    order: list[str] = []
    calls = {"a": lambda: order.append("a"), "b": lambda: order.append("b")}
    seconds = timing.interleaved(calls, repeats=2)
    assert order == ["a", "b"] * 3
    assert all(len(times) == 2 for times in seconds.values())


def test_a_full_cache_has_the_slots_that_a_step_uses() -> None:
    """One for each position of the context, and one for the step's own, however often it runs."""
    step = decode._full(2 * decode.WINDOW)
    new = torch.ones(1, decode.KV_HEADS, 1, decode.HEAD_DIM)
    for _ in range(2):
        keys, values, mask = step(new, new)
        assert keys.shape == values.shape == (1, 8, 2 * decode.WINDOW + 1, decode.HEAD_DIM)
        assert keys.untyped_storage().nbytes() == keys.numel() * 4
        assert mask is None
        assert torch.equal(keys[:, :, -1:], new)


@pytest.mark.parametrize("repeats", [0, -1, True])
def test_repeats_must_be_positive(repeats: int) -> None:
    with pytest.raises(ValueError, match="repeats"):
        decode.run(repeats)
    with pytest.raises(ValueError, match="repeats"):
        static.run(repeats)


def test_a_step_of_the_ring_weighs_the_same_at_any_context() -> None:
    figures = decode.run(repeats=2, contexts=(1024, 3072))
    assert figures["ring_bytes_equal"] is True
    held = [context["peak_bytes"]["ring"] for context in figures["contexts"].values()]
    assert len(held) == 2
    assert held[0] == held[1] > 0
    with pytest.raises(ValueError, match="contexts"):
        decode.run(repeats=1, contexts=(512,))


def test_the_command_writes_json_and_names_what_there_is(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "harness", "bench", "static", "--repeats", "2"]
    out = tmp_path / "figures.json"
    subprocess.run([*command, "--json", str(out)], check=True, capture_output=True)
    assert json.loads(out.read_text())["static"]["repeats"] == 2
    command[4] = "nothing"
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "no benchmark 'nothing'; there are decode, probe, static" in refused.stderr
    command[4:] = ["decode", "--long"]
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--long is for routing, which is not among decode" in refused.stderr


def test_the_help_says_how_long_it_takes_and_what_each_is() -> None:
    command = typer.main.get_command(app).commands["bench"]
    assert "minute" in command.help.splitlines()[0]
    (names,) = (p for p in command.params if p.name == "names")
    for name in BENCHMARKS:
        assert f"{name} (" in names.help


def test_a_long_bench_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, bool]] = []
    monkeypatch.setattr(
        "harness.bench.routing.run",
        lambda repeats, *, long=False: told.append((repeats, long)) or {},
    )
    for options in ([], ["--long"]):
        found = CliRunner().invoke(app, ["bench", "routing", "--repeats", "2", *options])
        assert found.exit_code == 0
    assert told == [(2, False), (2, True)]
