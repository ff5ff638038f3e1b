"""What `harness kv` is pointed at: weights, pipes, devices and large files are told, not read."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from gguf_files import keys, write

from harness.estimate import files, gguf_file, gguf_metadata
from harness.estimate.geometry import GeometryError
from harness.estimate.resolve import resolve

Run = Callable[..., tuple[int, str, str]]

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 64,
}


@pytest.fixture
def kv(run_harness: Run) -> Run:
    return partial(run_harness, "kv", "--context", 4096)


def refused(target: object) -> str:
    """The one line that refuses a target."""
    with pytest.raises(GeometryError) as caught:
        resolve(str(target))
    said = str(caught.value)
    assert len(said.splitlines()) == 1
    return said


def sparse(path: Path, nbytes: int, begin: bytes = b"") -> Path:
    """A file of that size, which takes no room on the disk."""
    path.write_bytes(begin)
    os.truncate(path, nbytes)
    return path


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "Model.PTH"])
def test_weights_are_named_as_weights(name: str, tmp_path: Path) -> None:
    said = refused(sparse(tmp_path / name, 2 << 30))
    assert f"{name}: holds weights, which are not read; give the model's config.json" in said


def test_no_more_is_read_than_a_config_has(tmp_path: Path, monkeypatch: Any) -> None:
    """One byte more is refused by its size alone, also if the file grows while it is read."""
    large = sparse(tmp_path / "config.json", files.MOST_BYTES + 1)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda *_: pytest.fail("a large file was opened"))
        assert "has more than 16 MiB, the most of a config.json; give the model's" in refused(large)
    monkeypatch.setattr(files, "size", lambda _path: 0)
    assert "has more than 16 MiB" in refused(large)
    text = json.dumps(CONFIG).encode()
    large.write_bytes(text + b" " * (files.MOST_BYTES - len(text)))
    assert len(resolve(str(large)).layers) == 2, "the most that is allowed is read"


@pytest.mark.parametrize("suffix", ["", ".json", ".gguf", ".safetensors"])
def test_only_regular_files_are_opened(suffix: str, tmp_path: Path) -> None:
    """A pipe that nobody writes to would keep us waiting for ever."""
    pipe = tmp_path / f"pipe{suffix}"
    os.mkfifo(pipe)
    assert "must be a config.json or a .gguf file, got a pipe" in refused(pipe)
    device = tmp_path / f"zero{suffix}"
    device.symlink_to("/dev/zero")
    assert "must be a config.json or a .gguf file, got a device" in refused(device)


def test_empty_and_unreadable_files(tmp_path: Path) -> None:
    for name in ("a.json", "a.gguf", "a"):
        (tmp_path / name).write_bytes(b"")
        assert f"{name}: is empty" in refused(tmp_path / name)
    (tmp_path / "blank.json").write_text(" \n", encoding="utf-8")
    assert "blank.json: is empty" in refused(tmp_path / "blank.json")
    loop = tmp_path / "loop.json"
    loop.symlink_to(loop)
    assert "cannot be read: Too many levels of symbolic links" in refused(loop)
    assert "config.json: cannot be read: No such file" in refused(tmp_path)
    (tmp_path / "folder.gguf").mkdir()
    assert "folder.gguf: must be a config.json or a .gguf file, got a folder" in refused(
        tmp_path / "folder.gguf"
    )
    assert "unknown model" in refused("x" * 5000), "no path is as long"
    assert "cannot be read: embedded null byte" in refused("a\0.json")


def test_what_the_system_forbids_is_said(tmp_path: Path, monkeypatch: Any) -> None:
    """Also in a folder that may not be searched, where the file cannot even be looked at."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8")

    def forbid(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    for what in ("open", "stat"):
        with monkeypatch.context() as patched:
            patched.setattr(Path, what, forbid)
            assert f"{path}: cannot be read: Permission denied" in refused(path)
            if what == "stat":
                assert "locked: cannot be read: Permission denied" in refused("locked")


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIG), encoding="utf-8-sig")
    assert resolve(str(path)).layers[0].k_dim == 16
    path.write_text(json.dumps(CONFIG), encoding="utf-16")
    assert "not a JSON file: 'utf-8' codec can't decode" in refused(path)


# ── GGUF ────────────────────────────────────────────────────────────────────────────────────────


def counted(n_keys: int) -> bytes:
    """The head of a GGUF file that claims so many keys."""
    return b"GGUF" + struct.pack("<IQQ", 3, 0, n_keys)


ARRAY, STRING, UINT8 = 9, 8, 0


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


def array(kind: int, n: int, items: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, n) + items


@pytest.mark.parametrize(
    ("begin", "message"),
    [
        (counted(1 << 40), f"{1 << 40} keys, where 4096 are the most"),
        (counted(1) + struct.pack("<Q", 1 << 29), "bytes where a key should be"),
        (counted(1) + key(b"k", ARRAY, array(STRING, 1 << 27)), "array of 134217728 items"),
        (counted(1) + key(b"k", ARRAY, array(ARRAY, 1 << 27)), "array of 134217728 items"),
        (
            counted(40)
            + b"".join(key(b"%d" % i, ARRAY, array(UINT8, 4096, bytes(4096))) for i in range(40)),
            "more than 65536 items in short arrays",
        ),
    ],
)
def test_a_damaged_count_costs_neither_time_nor_memory(
    begin: bytes, message: str, tmp_path: Path
) -> None:
    """Two GiB of zeros after it could be millions of keys, or strings of no length."""
    assert message in refused(sparse(tmp_path / "a.gguf", 2 << 30, begin))


def test_a_string_longer_than_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(counted(1) + key(b"k", STRING, struct.pack("<Q", 99)))
    assert "a string of 99 bytes ends after the end of the file" in refused(path)


@pytest.mark.parametrize("begin", [b"GG", b"GGUF", counted(1), counted(1) + b"\1"])
def test_a_file_that_ends_early_is_told_so(begin: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(begin)
    assert "it ends, or is damaged, in the middle of its metadata" in refused(path)


def test_long_strings_are_skipped(tmp_path: Path) -> None:
    """Some files hold a whole tokenizer.json."""
    path = tmp_path / "a.gguf"
    writer = GGUFWriter(path, "gemma3")
    writer.add_string("tokenizer.huggingface.json", "x" * (1 << 20))
    writer.add_string("tokenizer.chat_template", "x" * 50_000)
    for name, value in keys().items():
        writer.add_uint32(f"gemma3.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = gguf_metadata.metadata(path)
    assert data["tokenizer.huggingface.json"] == ""
    assert len(data["tokenizer.chat_template"]) == 50_000
    assert len(gguf_file.read_file(path).layers) == 12


def test_a_head_of_no_width_is_refused(tmp_path: Path) -> None:
    left = {"attention__key_length": ..., "embedding_length": 3, "attention__head_count": 4}
    path = write(tmp_path / "a.gguf", "gemma3", keys(**left))
    assert "embedding_length / head_count must be an integer in 1…" in refused(path)


# ── the command ─────────────────────────────────────────────────────────────────────────────────


HOSTILE = "\x1b]0;t\x07\x1b[31m[bold]x[/bold]\u202e\x85\ud800 \udcff\n"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_names_in_a_config_are_shown_escaped_in_any_locale(encoding: str, tmp_path: Path) -> None:
    """No control character and no traceback, in the table, the layers, JSON and messages."""
    good, bad = CONFIG | {"model_type": HOSTILE}, CONFIG | {"model_type": [HOSTILE]}
    (tmp_path / "good.json").write_text(json.dumps(good), encoding="utf-8")
    (tmp_path / "bad.json").write_text(json.dumps(bad), encoding="utf-8")
    os.symlink("good.json", os.fsencode(tmp_path) + b"/a\x1b[2J\xff.json")
    for args, status in (
        (["good.json", "--layers"], 0),
        (["good.json", "--json"], 0),
        ([b"a\x1b[2J\xff.json"], 0),
        (["bad.json"], 2),
        ([b"\x1b[2J\xff"], 2),
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "harness", "kv", "--context", "4096", *args],
            cwd=tmp_path,
            env={
                **os.environ,
                "PYTHONIOENCODING": encoding,
                "PYTHONPATH": os.pathsep.join(sys.path),
            },
            capture_output=True,
            check=False,
        )
        said = (ran.stdout + ran.stderr).decode(encoding)
        assert ran.returncode == status, said
        assert "Traceback" not in said
        assert not set(said) & {"\x1b", "\x07", "\u202e", "\x85", "\x80"}
        if args[0] == "good.json" and status == 0:
            assert r"\ud800 \udcff" in said
    assert said.startswith(r"harness: unknown model '\x1b[2J\udcff'")


def test_a_bracket_in_a_name_is_not_taken_for_a_colour(kv: Run, tmp_path: Path) -> None:
    config = CONFIG | {"model_type": "a[bold]b[/bold]c"}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "family: a[bold]b[/bold]c " in kv("config.json")[1]


def test_memory_stays_bounded(tmp_path: Path) -> None:
    """The largest config that is read, made of the smallest objects, takes less than a GB."""
    path = tmp_path / "config.json"
    path.write_bytes(b'{"model_type": [' + b"{}," * (files.MOST_BYTES // 3 - 10) + b"{}]}")
    code = (
        "import re\n"
        "from pathlib import Path\n"
        "from harness.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 2\n"
        # ru_maxrss would count the process that started this one, as large as it was then.
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, "kv", path, "--context", "4096"],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)),
    )
    assert int(ran.stdout) < 1_000_000, "KiB"
    assert "model_type must be a string of at most 200 characters, got [{}, {}, {}" in ran.stderr
