"""What the last stack of a check that hung tells: where it was, and whether it was compiling."""

from __future__ import annotations

import re
import sysconfig
from collections.abc import Iterable
from pathlib import Path

#: Files of torch that are on the stack only while it compiles or traces, not while it runs what
#: was compiled.
_COMPILING = (
    "torch/_dynamo/convert_frame.py",
    "torch/_dynamo/symbolic_convert.py",
    "torch/_inductor/compile_fx.py",
    "torch/fx/experimental/proxy_tensor.py",
    "torch/jit/_trace.py",
)
_HINT = (
    "torch was compiling: if it does so again for every new length, pad lengths to a few sizes "
    "(buckets), or mark them as dynamic"
)
#: A line of faulthandler, the innermost call first.
_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>.+)$', re.M)
_HARNESS = str(Path(__file__).parents[1])


def hint(files: Iterable[str]) -> str:
    """What to do, if one of these files of a stack shows that torch compiles; else ""."""
    normal = (file.replace("\\", "/") for file in files)
    return _HINT if any(file.endswith(_COMPILING) for file in normal) else ""


def explain(dump: str) -> str:
    """What faulthandler's text tells: the innermost line of the subject, and the hint; or ""."""
    frames = list(_FRAME.finditer(dump))
    library = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), _HARNESS, "<")
    own = [frame for frame in frames if not frame["file"].startswith(library)]
    place = ""
    if own:
        found = own[0]
        place = f"it was at {Path(found['file']).name}, line {found['line']}, in {found['name']}"
    return "; ".join(filter(None, (place, hint(frame["file"] for frame in frames))))
