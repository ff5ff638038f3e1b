"""Peak bytes of an exported program, from its graph alone.

Two values that share a storage are one allocation: a view costs nothing, and keeps its storage
alive.  An allocation lives from the node that makes it to the last node that uses any value on it;
what the program returns lives to the end.  Inputs, weights and buffers exist before, and are not
counted.  The result is the peak of an allocator that frees immediately.  The workspace of kernels
is not in a graph, and not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from torch import SymInt, Tensor
from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree


def peak_bytes(program: ExportedProgram) -> int:
    """The most bytes that are live at once, beyond inputs and state.

    Raises ValueError for a program with dynamic shapes, whose bytes are not a number.
    """
    nodes = list(program.graph_module.graph.nodes)
    there = {_id(t) for n in nodes if n.op in {"placeholder", "get_attr"} for t in _tensors(n)}
    size: dict[int, int] = {}
    made: dict[int, int] = {}  # storage -> the node that makes it, by number
    used: dict[int, int] = {}  # storage -> the last node that uses it
    for at, node in enumerate(nodes):
        for t in _tensors(node):
            storage = _id(t)
            if storage not in there:
                size[storage] = _nbytes(t)
                made.setdefault(storage, at)
                used[storage] = at
        args = (_id(t) for arg in node.all_input_nodes for t in _tensors(arg))
        used.update(dict.fromkeys((storage for storage in args if storage in made), at))
    change = [0] * (len(nodes) + 1)
    for storage, nbytes in size.items():
        change[made[storage]] += nbytes
        change[used[storage] + 1] -= nbytes  # its last user holds it while it runs
    return max(accumulate(change))


def _tensors(node: Node) -> Iterator[Tensor]:
    yield from (t for t in pytree.tree_leaves(node.meta.get("val")) if isinstance(t, Tensor))


def _id(t: Tensor) -> int:
    """The storage under a tensor, by identity."""
    storage: int = t.untyped_storage()._cdata
    return storage


def _nbytes(t: Tensor) -> int:
    # The storage's size, not the tensor's: a slice keeps all that it was cut from.
    nbytes: int | SymInt = t.untyped_storage().nbytes()
    if not isinstance(nbytes, int):
        raise ValueError(f"liveness needs static shapes, got a tensor of shape {tuple(t.shape)}")
    return nbytes
