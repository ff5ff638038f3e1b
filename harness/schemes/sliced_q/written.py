"""Attention that a frontend has written out: matmul, elementwise ops, softmax, matmul.

Conversion writes attention out if it has an explicit scale, as in most libraries' models, and for
older deployment targets.  A pass that knows only the fused op then finds nothing to do.
"""

from __future__ import annotations

from typing import Any

from harness.schemes.sliced_q.slicer import Pieces, Row, mb

#: Elementwise ops allowed between product and softmax, and the inputs that may carry the scores.
_STEPS = {
    **dict.fromkeys(("add", "sub", "mul", "real_div", "maximum", "minimum"), ("x", "y")),
    **dict.fromkeys(("cast", "clip", "tanh", "identity"), ("x",)),
    "select": ("a", "b"),
}

#: Ops allowed between softmax, which may be in another precision, and product with the values.
_AFTER = ("cast", "identity")

#: Ops from one product to the other, each with the name of its input that carries the scores.
Way = list[tuple[Any, str]]


class WrittenOut(Pieces):
    """An attention that ends in `softmax` and `matmul`.

    way: its ops, from the product of query and key, through the softmax, to the product with the
    values.
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
        """Why the ops between the two products cannot be moved; "" if they can."""
        for op in self.ops[:-1]:
            out = op.outputs[0]
            if op.enclosing_block is not self.ops[-1].enclosing_block:
                return "it is partly inside a branch"
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
        """What a piece uses of an elementwise op's other input: its rows, or a scalar as it is."""
        held = self.held.get(x, x)
        return self.rows_for(held, start, end) if held.rank > 0 else held


def way_of(softmax: Any) -> Way | None:
    """The way from a product of two tensors through `softmax` to another product, or None."""
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
    """The ops from a product of two tensors to `var`, or None.

    A product in which only the second tensor is a constant is a linear layer, and does not count.
    """
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
