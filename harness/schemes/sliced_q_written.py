"""Attention that a frontend has written out: matmul, elementwise ops, softmax, matmul.

Conversion does that to attention with an explicit scale, as the models of most libraries have it,
and for older targets; a pass that knows the fused op alone then finds nothing to do.
"""

from __future__ import annotations

from typing import Any

from harness.schemes.sliced_q_slicer import Pieces, Row, mb

#: Elementwise ops between the product and the softmax, and the inputs through which scores come.
_STEPS = {
    **dict.fromkeys(("add", "sub", "mul", "real_div", "maximum", "minimum"), ("x", "y")),
    **dict.fromkeys(("cast", "clip", "tanh", "identity"), ("x",)),
    "select": ("a", "b"),
}

#: Ops of a way from the product to the softmax, in order, and the name by which each gets it.
Way = list[tuple[Any, str]]


class WrittenOut(Pieces):
    """An attention that ends in `softmax` and `matmul`.

    way: from the product of query and key, the softmax included, to the product with the values.
    """

    form = "written out"

    def __init__(self, way: Way, parts: int) -> None:
        super().__init__(parts)
        self.way = way
        product, softmax, last = way[0][0], way[-2][0], way[-1][0]
        self.ops = [op for op, _ in way]
        self.query, self.key = product.x, product.y
        self.scores, self.weights = product.outputs[0], softmax.outputs[0]
        self.keys, self.width = self.weights.shape[-1], last.outputs[0].shape[-1]

    def unsliceable(self) -> str:
        product, softmax, last = self.ops[0], self.ops[-2], self.ops[-1]
        if product.transpose_x.val or last.transpose_x.val or last.x is not self.weights:
            return "rows of the query are not rows of the output"
        if softmax.axis.val not in (-1, len(self.weights.shape) - 1):
            return f"its softmax is over axis {softmax.axis.val}, not over the keys"
        if self.query.val is not None and self.key.val is not None:
            return "query and key are constants: their scores would be stored as weights"
        for op in self.ops[:-1]:
            out = op.outputs[0]
            if len(out.child_ops) != 1 or out.consuming_blocks:
                return f"{out.name}, on the way from scores to weights, is used elsewhere too"
            if len(out.shape) != len(self.scores.shape):
                return f"{op.op_type} {op.name} changes the rank of the scores"
        return ""

    def whole(self) -> Any:
        return self.piece(None, None)

    def piece(self, start: Row, end: Row) -> Any:
        product, *middle, last = self.ops
        value = self.emit(
            mb.matmul,
            x=self.rows(product.x, start, end),
            y=product.y,
            transpose_y=bool(product.transpose_y.val),
        )
        carriers = [name for _, name in self.way[1:]]
        for op, carrier in zip(middle, carriers, strict=False):
            inputs = {
                name: value if name == carrier else self.meets(var, start, end)
                for name, var in op.inputs.items()
            }
            value = self.emit(getattr(mb, op.op_type), **inputs)
        return self.emit(mb.matmul, x=value, y=last.y, transpose_y=bool(last.transpose_y.val))

    def meets(self, x: Any, start: Row, end: Row) -> Any:
        """Another input of an elementwise op: a tensor's rows, anything else as it is."""
        return self.rows_for(x, start, end) if x.rank > 0 else x


def way_of(softmax: Any) -> Way | None:
    """The way from a product of two tensors over a softmax to another product, if it is one."""
    out = softmax.outputs[0]
    readers = [op for op in out.child_ops if op.op_type == "matmul"]
    before = _back(softmax.x)
    if not readers or before is None:
        return None
    carrier = "x" if readers[0].x is out else "y"
    return [*before, (softmax, "x"), (readers[0], carrier)]


def _back(var: Any) -> Way | None:
    """The ops from a product of two tensors, neither of them constant, to a variable."""
    op = var.op
    if op is None:
        return None
    if op.op_type == "matmul":
        return None if op.y.val is not None and op.x.val is None else [(op, "x")]
    for name in _STEPS.get(op.op_type, ()):
        given = getattr(op, name)
        if given.val is None and given.shape == var.shape:
            way = _back(given)
            if way is not None:
                return [*way, (op, name)]
    return None
