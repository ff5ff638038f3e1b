"""`harness kv` on whatever a file may hold: a figure, or one line; never a traceback or a hang.

`HOSTILE_EXAMPLES=2000 pytest suites/meta/estimate/test_estimate_hostile.py` draws more.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import resource
import signal
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_configs import CONFIGS, GEMMA, MANY, config_texts, gguf_files
from hypothesis import example, given

from harness.cli import main as cli
from harness.estimate import hf_config
from harness.estimate.geometry import GeometryError

#: A refusal takes milliseconds and a figure of 4096 layers a second; this is no measurement.
SECONDS = 60

#: KiB that this process may grow by, all examples together.
ROOM = 1_000_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hostile")


@contextlib.contextmanager
def alarmed() -> Iterator[None]:
    """End what hangs with the traceback of where it does."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"no answer after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def kv(path: Path, *more: str) -> tuple[int, str, str]:
    """Run the command in this process on one file: (exit status, stdout, stderr)."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", newline="") for _ in range(2))
    argv, sys.argv = sys.argv, ["harness", "kv", str(path), "--context", "4096", *more]
    try:
        with alarmed(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        sys.argv = argv
    said = []
    for stream in (out, err):
        stream.flush()
        said.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return status, *said


def obeys(char: str) -> bool:
    """True for a character that a terminal obeys instead of showing it, or that cannot be sent."""
    turns = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    controls = {"Cc", "Cs", "Zl", "Zp"}
    return unicodedata.category(char) in controls or unicodedata.bidirectional(char) in turns


def answers(path: Path) -> int:
    """The exit status for a file; asserts that 0 gives a table and JSON, and any other one line."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status, out, err = kv(path)
    obeyed = {char for char in out + err if char != "\n" and obeys(char)}
    assert not obeyed, f"a terminal obeys {obeyed!r}"
    if status == 0:
        assert "known by" in out
        data = json.loads(kv(path, "--json")[1])
        for line in data["runtimes"]:
            assert line["bytes"] is None or 0 <= line["bytes"] < math.inf
            assert line["bytes"] is not None or line["note"]
    else:
        assert out == ""
        assert err.startswith("harness: ")
        assert err.count("\n") == 1
        assert len(err) < 5000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < ROOM
    return status


@MANY
@given(config_texts())
@example(b'{"model_type": "\\udcff", "num_hidden_layers": 2, "n_head": 4, "hidden_size": 64}')
@example(b'{"text_config":' * 400 + b"{}" + b"}" * 400)
@example(b'{"model_type":' + b"[" * 900 + b"]" * 900 + b"}")
@example(b'{"model_type": "x", "num_hidden_layers": ' + b"9" * 4000 + b"}")
@example(b"NaN")
def test_texts_of_configs(folder: Path, text: bytes) -> None:
    path = folder / "config.json"
    path.write_bytes(text)
    assert answers(path) in (0, 2)


@MANY
@given(CONFIGS)
def test_configs(folder: Path, config: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    assert answers(path) in (0, 2)


@MANY
@given(CONFIGS)
@example(GEMMA | {"model_type": "qwen3_next"})
@example({"model_type": 10**5000})
@example({"model_type": [10**5000]})
def test_dictionaries(config: dict[str, Any]) -> None:
    """From Python, values that JSON does not have reach the reader too."""
    refused, layers = "", ()
    try:
        with alarmed():
            layers = hf_config.read(config).layers
    except GeometryError as error:
        refused = str(error)
    assert layers or (refused.startswith("config: ") and len(refused) < 5000)
    for layer in layers:
        if layer.kind == "state":
            assert all(state.numbers > 0 for state in layer.states)
        elif layer.kind != "nothing":
            assert min(layer.kv_heads, layer.k_dim) > 0
            # A latent may have no rotary key beside it.
            assert layer.v_dim > 0 or (layer.latent and layer.v_dim == 0)


def test_a_config_that_holds_itself_is_refused() -> None:
    config: dict[str, Any] = {"model_type": "x"}
    config["text_config"] = config
    with alarmed(), pytest.raises(GeometryError, match="nests more than 8 configs"):
        hf_config.read(config)


@MANY
@given(gguf_files())
def test_bytes_of_gguf_files(folder: Path, data: bytes) -> None:
    path = folder / "model.gguf"
    path.write_bytes(data)
    assert answers(path) in (0, 2)


def test_every_layer_with_a_window_of_its_own_takes_no_minutes(folder: Path) -> None:
    """The most layers, each with another window, at the longest context."""
    n = 4096
    config = {
        "model_type": "gemma3_text",
        "num_hidden_layers": n,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "sliding_window": 512,
        "layer_types": ["sliding_attention"] * n,
        "per_layer_config": {str(i): {"sliding_window": (1 << 20) - i} for i in range(n)},
    }
    path = folder / "config.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    status, out, _ = kv(path, "--json", "--context", "128M", "--prompt", "1")
    assert status == 0
    by_name = {line["name"]: line for line in json.loads(out)["runtimes"]}
    assert by_name["mlx-lm"]["layer_bytes"] == by_name["ideal"]["layer_bytes"]
