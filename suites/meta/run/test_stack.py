"""The last stack of a check that hung: the subject's own line, and whether torch was compiling."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from harness.run import stack

TORCH = Path(torch.__file__).parent
COMPILES = f"""
Current thread 0x00007f (most recent call first):
  File "{TORCH}/_inductor/codecache.py", line 9 in load
  File "{TORCH}/_dynamo/convert_frame.py", line 700 in compile_inner
  File "/home/me/cache.py", line 12 in update
  File "{Path(stack.__file__).parents[1]}/checks/drive.py", line 3 in step
  File "<frozen runpy>", line 88 in _run_code
"""


def test_it_names_the_innermost_line_of_the_subject_and_the_remedy() -> None:
    said = stack.explain(COMPILES)
    assert said.startswith("it was at cache.py, line 12, in update; torch was compiling")
    assert "(buckets)" in said


def test_running_what_was_compiled_is_not_compiling() -> None:
    assert stack.hint([f"{TORCH}/_dynamo/eval_frame.py", f"{TORCH}/nn/modules/module.py"]) == ""
    assert "buckets" not in stack.explain(COMPILES.replace("convert_frame", "eval_frame"))


def test_without_a_stack_nothing_is_said() -> None:
    assert stack.explain("") == ""
    assert stack.explain(f'  File "{sys.prefix}/x"\nno frame') == ""


def test_the_files_that_it_looks_for_are_torch_s() -> None:
    for name in stack._COMPILING:
        assert (TORCH.parent / name).is_file(), name
