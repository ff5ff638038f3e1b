"""What commands print: they run checks, so this needs PyTorch and some seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from page_parts.source import ROOT

EXAMPLE = ROOT / "examples" / "my_cache.py"
_SHORT = ("window + 1", "window + 2")  # what the page on reading a failure changes
_ONE = ("--case", "mistral-w9/chunk-4/float32/b1", "--check", "visibility")
#: By name: (text in the example, text in its place), and the command that is run beside it.
OUTPUTS: dict[str, tuple[tuple[str, str], tuple[str, ...]]] = {
    "the example": (("", ""), ("check", "examples/my_cache.py:MyCache", "--model", "mistral-w9")),
    "the example, one key short": (
        _SHORT,
        ("check", "examples/my_cache.py:MyCache", "--model", "mistral-w9"),
    ),
    "one check": (_SHORT, ("check", "examples/my_cache.py:MyCache", *_ONE)),
    "kv": (("", ""), ("kv", "gemma-3-27b", "--context", "131072")),
}


def output(name: str) -> str:
    """What a command prints beside a copy of the example, with a change made to it."""
    (old, new), arguments = OUTPUTS[name]
    text = EXAMPLE.read_text(encoding="utf-8")
    assert old in text, f"{EXAMPLE.name} holds no {old!r}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for terminal in ("COLUMNS", "FORCE_COLOR"):
        environment.pop(terminal, None)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / EXAMPLE.relative_to(ROOT)
        copy.parent.mkdir()
        copy.write_text(text.replace(old, new), encoding="utf-8")
        ran = subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode in (0, 1), ran.stderr
    lines = [line.rstrip() for line in ran.stdout.splitlines()]
    return "\n".join(lines).strip("\n") + "\n"
