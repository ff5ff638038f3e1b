"""Unpacks the Core ML model package from the blob that ExecuTorch's Core ML delegate stores.

The delegate's bytes are a small file system: the files, and after them a footer.  The footer is
JSON written backwards; it holds a tree of nodes, of which the last is the root (executorch 1.4.1,
backends/apple/coreml/runtime/inmemoryfs).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.mil.arrays import Array
from harness.mil.errors import MilError

BACKEND = "CoreMLBackend"
_FILE = 0


@dataclass(frozen=True)
class Delegated:
    """An ExecuTorch program that consists of one Core ML model and nothing else.

    blob: the delegate's bytes.  inputs, outputs: indices of the program's values.
    args: indices of the values that the delegate is called with, the model's inputs and then its
    outputs.
    """

    blob: bytes
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    args: tuple[int, ...]

    def call(
        self,
        leaves: Sequence[Array],
        predict: Callable[[dict[str, Array]], Mapping[str, Array]],
        names: tuple[Sequence[str], Sequence[str]],
    ) -> list[Array]:
        """The program's outputs for its flattened inputs.

        predict: runs the model.  names: its input names and output names, in the order of `args`.
        """
        takes, gives = names
        values = dict(zip(self.inputs, leaves, strict=True))
        answers = predict({name: values[at] for name, at in zip(takes, self.args, strict=False)})
        made = (answers[name] for name in gives)
        values.update(zip(self.args[len(takes) :], made, strict=True))
        return [values[at] for at in self.outputs]


def delegated(pte: bytes) -> Delegated:
    """The one model that a program consists of.

    pte: the bytes of a .pte file.  Raises MilError if the program calls kernels, or not exactly one
    delegate: what is not delegated would not run in Core ML.
    """
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir.schema import DelegateCall

    program = deserialize_pte_binary(pte).program
    plan = program.execution_plan[0]
    calls = [i.instr_args for chain in plan.chains for i in chain.instructions]
    found = [delegate.id for delegate in plan.delegates]
    kernels = [op.name for op in plan.operators]
    if found != [BACKEND] or len(calls) != 1 or not isinstance(calls[0], DelegateCall):
        raise MilError(
            f"the program must be one call of {BACKEND}; it has {len(calls)} instructions, "
            f"the delegates {found} and the kernels {kernels}"
        )
    return Delegated(
        blob=bytes(program.backend_delegate_data[plan.delegates[0].processed.index].data),
        inputs=tuple(plan.inputs),
        outputs=tuple(plan.outputs),
        args=tuple(calls[0].args),
    )


def unpack(blob: bytes, folder: Path) -> Path:
    """Write the delegate's files under `folder`; returns the path of the .mlpackage among them.

    Writes nothing outside `folder`, whatever the footer says.  Raises MilError if the bytes have no
    such footer, if it is no tree of files, or if there is not exactly one .mlpackage.
    """
    try:
        nodes = json.JSONDecoder().raw_decode(blob[::-1].decode("latin1"))[0]["nodes"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MilError(f"no footer at the end of the delegate's {len(blob)} bytes") from error
    if not isinstance(nodes, list) or not nodes:
        raise MilError("nodes in the delegate's footer must be a list with at least the root")
    try:
        _write(nodes, len(nodes) - 1, blob, folder, set())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise MilError(f"the delegate's footer is damaged: {why}") from error
    packages = sorted(folder.rglob("*.mlpackage"))
    if len(packages) != 1:
        raise MilError(f"the delegate must hold one .mlpackage, got {[p.name for p in packages]}")
    return packages[0]


def names(package: Path) -> tuple[list[str], list[str]]:
    """Names of the model's inputs and outputs, in the order that the delegate passes them."""
    about: dict[str, Any] = json.loads((package.parent / "metadata.json").read_text())
    return about["inputNames"], about["outputNames"]


def _write(
    nodes: list[dict[str, Any]], index: int, blob: bytes, at: Path, written: set[int]
) -> None:
    """Write the node at an index, and all below it.  Raises MilError for what is no tree."""
    if not 0 <= index < len(nodes) or index in written:
        raise MilError(
            f"a child in the delegate's footer must be one of {len(nodes)} nodes, which no other "
            f"names, got {index}"
        )
    written.add(index)
    node = nodes[index]
    if node["kind"] == _FILE:
        begin, size = node["dataRegion"]["offset"], node["dataRegion"]["size"]
        if not 0 <= begin <= begin + size <= len(blob):
            raise MilError(f"{at.name!r} must lie in {len(blob)} bytes, got {size} at {begin}")
        at.write_bytes(blob[begin : begin + size])
        return
    at.mkdir(parents=True, exist_ok=True)
    for name, child in node["children"].items():
        last = Path(name).name
        if last in {"", ".."}:  # of "." and "/" nothing is left; either is no name for a file
            raise MilError(f"a child in the delegate's footer must have a name, got {name!r}")
        _write(nodes, child, blob, at / last, written)
