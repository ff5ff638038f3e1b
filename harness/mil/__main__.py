"""Prints the ops of a saved model and the memory it needs: ``python -m harness.mil m.mlpackage``.

Exit status: 0; 1 if the interpreter has no code for an op; 2 if the file cannot be read.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.mil.conversion import hushed
from harness.mil.errors import MilError


def main(arguments: Sequence[str]) -> int:
    """Print the ops, bounds on the peak bytes, and what is live at the peak.

    Returns the exit status.
    """
    if len(arguments) != 1 or arguments[0].startswith("-"):
        return _refuse("give one model: python -m harness.mil model.mlpackage")
    path = Path(arguments[0])
    if not path.exists():
        return _refuse(f"{path}: no such file")
    try:
        program = _load(path)
    except MilError as error:
        return _refuse(str(error))
    except Exception as error:  # coremltools and protobuf can raise anything on such a file
        return _refuse(f"{path} is not a Core ML model: {type(error).__name__}: {error}")
    return max(_show(name, function) for name, function in program.functions.items())


def _load(path: Path) -> Any:
    with hushed():  # on import, coremltools warns that libraries which only macOS has are missing
        from harness.mil.interpreter import load

        return load(str(path))


def _show(name: str, function: Any) -> int:
    from harness.mil.blocks import all_ops, is_weight
    from harness.mil.liveness import peak
    from harness.mil.prepared import coverage

    ops = [op for op in all_ops(function.operations) if not is_weight(op)]
    known = coverage()
    print(f"{name}: {len(ops)} ops")
    for kind, n in Counter(op.op_type for op in ops).most_common():
        print(f"{n:>6}  {kind:<32} {known.get(kind, 'no code')}")
    try:
        found = peak(function)
    except ValueError as error:
        print(f"peak: {error}")
    else:
        print(f"weights {found.weights:,} bytes, written {found.bytes_written:,}")
        for label in ("outputs_only", "fused", "breadth_first"):
            print(f"peak, {label}: {getattr(found, label).table()}")
    return int(any(op.op_type not in known for op in ops))


def _refuse(message: str) -> int:
    print(f"harness.mil: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
