"""`harness kv`: quick, without torch, exact, and one clear line for every mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import pytest
import typer

from harness.cli.main import app
from harness.estimate import model_id
from harness.estimate.elements import ELEMENTS
from harness.estimate.hf_write import to_config
from harness.estimate.profiles import PHASES, PROFILES

K128 = ("--context", "131072")
Run = Callable[..., tuple[int, str, str]]

#: What any command must import: Python itself, and the packages for options and tables.
START = "import rich.console, rich.table, typer"
#: The command takes four times that, on a machine of any speed; importing torch takes thirty.
TIMES = 8

ANSWER = """
from harness.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code
"""
#: Says what was imported and what CPU time that took.
PROBE = """
import resource, sys
used = resource.getrusage(resource.RUSAGE_SELF)
heavy = sorted({"torch", "pandas", "numpy", "transformers", "gguf"} & set(sys.modules))
print("PROBE", used.ru_utime + used.ru_stime, heavy)
"""


@pytest.fixture
def kv(run_harness: Run) -> Run:
    """Run `harness kv` in an empty folder: (exit status, stdout, stderr)."""
    return partial(run_harness, "kv")


def probe(code: str) -> tuple[float, str, str]:
    """Run code in a new Python: CPU seconds, the heavy modules it imported, what it printed."""
    command = [sys.executable, "-c", code + PROBE, "kv", "gemma-3-27b", *K128]
    ran = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "140"}
    )
    printed, _, used = ran.stdout.rpartition("PROBE ")
    seconds, heavy = used.split(maxsplit=1)
    return float(seconds), heavy.strip(), printed


def test_it_answers_at_once_and_without_torch() -> None:
    """Compares CPU times of two commands on one machine, whose load and speed then cancel out."""
    needed = min(probe(START)[0] for _ in range(3))
    seconds, heavy, printed = min(probe(ANSWER) for _ in range(3))
    assert heavy == "[]"
    assert seconds < TIMES * needed
    assert "11,391,729,664" in printed


def test_the_table_names_every_runtime(kv: Run) -> None:
    status, out, _ = kv("gemma-3-27b", *K128)
    assert status == 0
    assert "gemma3-27b: gemma3, 62 layers (52 sliding, 10 full)" in out
    for name in PROFILES:
        assert f"\n{name} " in out
    for figure in ("66,571,993,088", "11,173,625,856", "11,391,729,664", "2,196,504,575", "-81%"):
        assert figure in out


def test_json_is_complete(kv: Run) -> None:
    status, out, _ = kv(
        "gemma-4-e2b",
        "--context",
        8192,
        "--json",
        "--runtime",
        "llama.cpp",
        "--runtime",
        "ideal",
        "--sequences",
        2,
        "--k-type",
        "bf16",
    )
    data = json.loads(out)
    assert status == 0
    assert [line["name"] for line in data["runtimes"]] == ["ideal", "llama.cpp"]
    for line in data["runtimes"]:
        assert sum(line["layer_bytes"]) == line["bytes"]
        assert len(line["layer_bytes"]) == len(data["layers"]) == 35
        assert (line["honours_window"], line["note"]) == ("yes", "")
    assert data["request"] == {
        "context": 8192,
        "sequences": 2,
        "prompt": 8192,
        "phase": "steady",
        "k_type": "bf16",
        "v_type": "f16",
    }
    assert data["layers"][4] == {
        "kind": "full",
        "window": None,
        "chunk": None,
        "kv_heads": 1,
        "k_dim": 512,
        "v_dim": 512,
        "reads": None,
        "latent": False,
        "states": [],
    }
    assert data["layers"][34]["reads"] == 14
    assert data["facts"][0]["sure"] == "table"


def test_layers_on_request(kv: Run) -> None:
    status, out, _ = kv("gemma-4-e2b", "--context", 8192, "--layers", "--runtime", "llama.cpp")
    assert status == 0
    for words in ("0-3, 5-8, 10-13", "sliding 512", "4, 9, 14", "reads another's"):
        assert words in out


def test_options_of_runtimes(kv: Run) -> None:
    for option, figure in (
        ("swa_full=true", 63_488),
        ("n_ubatch=2048", 11_488),
        ("unified=true", 10_864),
    ):
        _, out, _ = kv("gemma-3-27b", *K128, "--json", "--runtime", "llama.cpp", "--set", option)
        assert json.loads(out)["runtimes"][0]["bytes"] == figure * 2**20
    _, out, _ = kv(
        "llama3-8b", *K128, "--json", "--runtime", "executorch.sink", "--set", "window=100"
    )
    assert json.loads(out)["runtimes"][0]["layer_bytes"] == [204 * 8 * 128 * 2 * 2] * 32
    _, out, _ = kv("gemma-3-27b", *K128, "--json", "--runtime", "mlx-lm", "--phase", "peak")
    assert json.loads(out)["runtimes"][0]["layer_bytes"][0] == (1023 + 2048) * 8192


def test_files(kv: Run, tmp_path: Path) -> None:
    """A config.json and its folder give what the name gives."""
    geometry = model_id.read("gemma3-27b")
    (tmp_path / "config.json").write_text(json.dumps(to_config(geometry)), encoding="utf-8")
    for target in ("config.json", tmp_path):
        status, out, _ = kv(target, *K128, "--json", "--runtime", "llama.cpp")
        assert status == 0
        assert json.loads(out)["runtimes"][0]["bytes"] == 11_391_729_664
    status, out, _ = kv(tmp_path, *K128)
    assert status == 0
    assert "sliding_window" in out, "where the figures come from"
    assert "needs the number of parameters" in out
    _, out, _ = kv(tmp_path, *K128, "--set", "billions=27")
    assert "2,196,504,575" in out


def test_a_family_that_nobody_has_looked_at_is_marked(kv: Run, tmp_path: Path) -> None:
    config = to_config(model_id.read("gemma3-27b")) | {"model_type": "brand_new"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    _, out, _ = kv("config.json", *K128, "--runtime", "llama.cpp")
    assert "unknown  66,571,993,088" in out
    assert "window unknown: nobody has checked; counted as if it were ignored" in out


def test_peers(kv: Run) -> None:
    status, out, _ = kv("gemma-3-27b", *K128, "--peers", "--runtime", "llama.cpp")
    assert status == 0
    for words in ("whichllm", "hf-mem"):
        assert words in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("gemma-3-28b", *K128), "unknown model 'gemma-3-28b'; near: gemma3-27b"),
        (("llama-gemma-3-27b", *K128), "'llama' says that its geometry may differ"),
        (("", *K128), "MODEL must be a model's name, a config.json or a .gguf file, got ''"),
        (("none.gguf", *K128), "none.gguf: cannot be read: No such file or directory"),
        (("none.json", *K128), "none.json: cannot be read: No such file or directory"),
        (("bad.gguf", *K128), "bad.gguf: not a readable GGUF file: ValueError: GGUF magic invalid"),
        (("bad.json", *K128), "bad.json: not a JSON file"),
        (("half.json", *K128), "half.json: num_hidden_layers is missing; read: model_type x"),
        ((".", *K128), "config.json: cannot be read"),
        (("gemma-3-27b", "--context", 0), "context must be an integer in 1…134217728, got 0"),
        (("gemma-3-27b", "--context", -5), "context must be an integer in 1…134217728, got -5"),
        (("gemma-3-27b", "--context", 10**12), "context must be an integer in 1…134217728, got 1"),
        (("gemma-3-27b", "--context", "200M"), "in 1…134217728, got 209715200"),
        (("gemma-3-27b", "--context", "long"), "128k (k is 1024, M is 1048576), got 'long'"),
        (("gemma-3-27b", "--context", "1e5"), "context must be an integer such as 131072 or 128k"),
        (("gemma-3-27b", "--context", ""), "context must be an integer such as 131072 or 128k"),
        (("gemma-3-27b", "--context", "9" * 5000), "got '99999"),
        (("gemma-3-27b", *K128, "--prompt", "some"), "prompt must be an integer such as"),
        (("gemma-3-27b", *K128, "--sequences", "1.5"), "sequences must be an integer such as"),
        (("gemma-3-27b", "none.json", *K128), "none.json: cannot be read"),
        (("x" * 5000, *K128), "unknown model 'xxx"),
        (("\x1b[2J", *K128), r"unknown model '\x1b[2J'"),
        (("qwen3-8b", *K128), "near: qwen2.5-7b; give a config.json, a .gguf file, or one of: gem"),
        (("gemma-3-27b", *K128, "--runtime", "lama.cpp"), "got 'lama.cpp'; near: llama.cpp"),
        (("gemma-3-27b", *K128, "--phase", "late"), "phase must be one of peak, prefill"),
        (("gemma-3-27b", *K128, "--k-type", "q3"), "cache type must be one of f32, f16"),
        (("gemma-3-27b", *K128, "--prompt", 131073), "prompt (context=131072) must be an integer"),
        (("gemma-3-27b", *K128, "--sequences", 0), "sequences must be an integer"),
        (("gemma-3-27b", *K128, "--set", "swa_full"), "option must be NAME=VALUE with NAME one of"),
        (("gemma-3-27b", *K128, "--set", "nope=1"), "option must be NAME=VALUE with NAME one of"),
        (("gemma-3-27b", *K128, "--set", "swa_full=7"), "swa_full must be true or false, got '7'"),
        (("gemma-3-27b", *K128, "--set", "n_ubatch=x"), "n_ubatch must be a number, got 'x'"),
        (("gemma-3-27b", *K128, "--set", "n_ubatch=0"), "n_ubatch must be an integer in 1…"),
        (("gemma-3-27b", *K128, "--set", "billions=nan"), "billions must be a number in 0…"),
    ],
)
def test_mistakes_get_one_line(
    kv: Run, tmp_path: Path, args: tuple[object, ...], message: str
) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"not a model")
    (tmp_path / "bad.json").write_text("{", encoding="utf-8")
    (tmp_path / "half.json").write_text('{"model_type": "x"}', encoding="utf-8")
    status, out, err = kv(*args)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("harness: ")
    assert message in err


def test_usage_errors_exit_with_2(kv: Run) -> None:
    for args in (("gemma-3-27b",), (*K128,), ("a", *K128, "--nope")):
        status, out, err = kv(*args)
        assert (status, out) == (2, "")
        assert "harness kv [OPTIONS]" in err


def test_a_named_runtime_without_a_figure_is_a_failure(kv: Run) -> None:
    """A script that asks for one runtime must see that it got nothing, and read why."""
    wanted = ("--runtime", "llama.cpp", "--k-type", "fp8")
    why = "harness: gemma3-27b: llama.cpp has no figure: llama.cpp has no cache of fp8; it has"
    for more in ((), ("--json",), ("--runtime", "ideal")):
        status, out, err = kv("gemma-3-27b", *K128, *wanted, *more)
        assert status == 1
        assert "llama.cpp" in out, "what there is, is shown"
        assert err.startswith(why)
        assert err.count("\n") == 1
    status, _, err = kv("gemma-3-27b", *K128, "--k-type", "fp8")
    assert (status, err) == (0, ""), "the table of all runtimes says itself which have none"


@pytest.mark.parametrize(
    ("text", "number"),
    [("128k", 131072), ("128K", 131072), ("1m", 1 << 20), ("1M", 1 << 20), (" +64 ", 64)],
)
def test_lengths_with_a_suffix(kv: Run, text: str, number: int) -> None:
    status, out, _ = kv("gemma-3-27b", "--context", text, "--json", "--runtime", "ideal")
    assert status == 0
    assert json.loads(out)["request"]["context"] == number
    _, out, _ = kv("gemma-3-27b", "--context", "1M", "--prompt", text, "--json")
    assert json.loads(out)["request"]["prompt"] == number


def test_several_models_get_a_table_each(kv: Run) -> None:
    names = ("gemma-3-27b", "llama3-8b", "gemma-3-27b")
    status, out, _ = kv(*names, *K128, "--runtime", "llama.cpp")
    assert status == 0
    assert [out.count(f"{row}: ") for row in ("gemma3-27b", "llama3-8b")] == [1, 1]
    assert out.index("11,391,729,664") < out.index("llama3-8b: ") < out.index("17,179,869,184")
    _, out, _ = kv(*names, *K128, "--json")
    assert [each["model"] for each in json.loads(out)] == ["gemma3-27b", "llama3-8b"]


def test_the_help_names_every_option_type_and_phase() -> None:
    """The lists in the help are written by hand, so that it needs no import of the runtimes."""
    command = typer.main.get_command(app).commands["kv"]
    words = {w for p in command.params for w in re.findall(r"[\w.-]+\w", p.help or "")}
    options = {field.name for kind in PROFILES.values() for field in fields(kind)}
    owners = {name for name, kind in PROFILES.items() if fields(kind)}
    assert (options | owners | set(ELEMENTS) | set(PHASES)) <= words


def test_the_columns_are_explained_where_they_are_used(kv: Run) -> None:
    error = "error: relative to the bytes that llama.cpp allocates"
    window = "window: whether the keys that have left the model's windows are dropped"
    none = "window -: the model has none, every layer keeps every key"
    _, out, _ = kv("gemma-3-27b", *K128)
    assert error in out
    assert window in out
    _, out, _ = kv("llama3-8b", *K128, "--runtime", "ideal")
    assert none in out
    assert "error" not in out
    assert window not in out
