"""Attention that a frontend has written out: matmul, elementwise ops, softmax, matmul.

Conversion does that to attention with an explicit scale, as the models of most libraries have it,
and for older targets; a pass that knows the fused op alone then finds nothing to do.
"""

from __future__ import annotations

from typing import Any

from harness.schemes.sliced_q.slicer import Pieces, Row, mb

#: Elementwise ops between the product and the softmax, and the inputs through which scores come.
_STEPS = {
    **dict.fromkeys(("add", "sub", "mul", "real_div", "maximum", "minimum"), ("x", "y")),
    **dict.fromkeys(("cast", "clip", "tanh", "identity"), ("x",)),
    "select": ("a", "b"),
}

#: Ops between the softmax, which may be in another precision, and the product with the values.
_AFTER = ("cast", "identity")

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
        self.held: dict[Any, Any] = {}
        self.ops = [op for op, _ in way]
        self.query, self.key = self.ops[0].x, self.ops[0].y
        self.softmax = next(op for op in self.ops if op.op_type == "softmax")
        self.keys, self.width = self.softmax.x.shape[-1], self.old.shape[-1]

    def unsliceable(self) -> str:
        product, last, softmax = self.ops[0], self.ops[-1], self.softmax
        rank = len(product.outputs[0].shape)
        if product.transpose_x.val or last.transpose_x.val or self.way[-1][1] != "x":
            return "rows of the query are not rows of the output"
        if softmax.axis.val not in (-1, rank - 1):
            return f"its softmax is over axis {softmax.axis.val}, not over the keys"
        if self.query.val is not None and self.key.val is not None:
            return "query and key are constants: their scores would be stored as weights"
        return self._astray()

    def _astray(self) -> str:
        """Why an op on the way from the product to the values cannot be taken from its place."""
        for op in self.ops[:-1]:
            out = op.outputs[0]
            if op.enclosing_block is not self.ops[-1].enclosing_block:
                return "it stands partly in a branch"
            if len(out.child_ops) != 1 or out.consuming_blocks:
                return f"{out.name}, on the way from scores to weights, is used elsewhere too"
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

    def hold_inputs(self) -> None:
        for op in self.ops[1:-1]:
            for var in op.inputs.values():
                self.held[var] = self.hold(var)

    def meets(self, x: Any, start: Row, end: Row) -> Any:
        """Another input of an elementwise op: a tensor's rows, anything else as it is."""
        held = self.held.get(x, x)
        return self.rows_for(held, start, end) if held.rank > 0 else held


def way_of(softmax: Any) -> Way | None:
    """The way from a product of two tensors over a softmax to another product, if it is one."""
    before, last = _back(softmax.x), softmax
    if before is None:
        return None
    after: Way = []
    while True:
        out = last.outputs[0]
        readers = [op for op in out.child_ops if op.op_type in ("matmul", *_AFTER)]
        if not readers:
            return None
        last = readers[0]
        after.append((last, "x" if last.x is out else "y"))
        if last.op_type == "matmul":
            return [*before, (softmax, "x"), *after]


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
