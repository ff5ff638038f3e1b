"""Rewrites an attention of a MIL program so that it takes one piece of its query at a time.

`Pieces` holds what every form of attention needs: where to cut, rows of tensors, one join at the
end.  `Slicer` is for the fused op.  Each step is a small method, so that a planted fault can
override the one that it breaks.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.types.symbolic import is_symbolic

from harness.schemes.sliced_q.chunks import Span, split

#: The builder of ops, under its usual name.
mb = mil.Builder

#: The number of a row: an int, or a scalar of the program; None if all rows are meant.
Row = Any


class Pieces(ABC):
    """An attention of a program, and how it is rewritten.

    ops: the ops that it consists of now, in order.  old: its output.  query: the tensor that is
    cut.  keys: the number of keys.  width: the width of the output.  form: "fused" or "written
    out".
    """

    form: str
    ops: list[Any]
    query: Any
    keys: Any
    width: Any

    def __init__(self, parts: int) -> None:
        self.parts = parts
        self.where: dict[str, Any] = {}

    @property
    def old(self) -> Any:
        return self.ops[-1].outputs[0]

    @abstractmethod
    def unsliceable(self) -> str:
        """Why it cannot be cut into pieces; "" if it can."""

    @abstractmethod
    def piece(self, start: Row, end: Row) -> Any:
        """The rows of the output from start to end."""

    @abstractmethod
    def whole(self) -> Any:
        """All rows at once, as in the original."""

    def here(self, before: Any) -> None:
        """Write new ops before the op `before`; None: at the end of the block being built."""
        self.where = {} if before is None else {"before_op": before}

    def emit(self, make: Callable[..., Any], **inputs: Any) -> Any:
        """A new op, at the place that `here` has set."""
        return make(**inputs, **self.where)

    @abstractmethod
    def hold_inputs(self) -> None:
        """Keep branches from reading boolean inputs of the function directly; `hold` says why."""

    def hold(self, x: Any) -> Any:
        """An identity op over a boolean input of the function; anything else as it is.

        Core ML takes no boolean inputs.  The converter's backend makes them float32 and casts them
        back for every reader except those inside a branch, which would read float32 as booleans.
        """
        is_input = x is not None and x.op is None
        return self.emit(mb.identity, x=x) if is_input and x.dtype == types.bool else x

    def write(self, spans: list[Any]) -> Any:
        """The output, from its pieces: one concatenation at the end."""
        return self.join([self.piece(start, end) for start, end in spans])

    def join(self, pieces: list[Any]) -> Any:
        if len(pieces) == 1:
            return pieces[0]
        axis = len(pieces[0].shape) - 2
        return self.emit(mb.concat, values=pieces, axis=axis)

    # --- where to cut ------------------------------------------------------------------------

    def spans(self) -> list[Span]:
        """Where to cut a query of known length."""
        known = not is_symbolic(self.keys) and not is_symbolic(self.width)
        length = int(self.query.shape[-2])
        return split(length, self.parts, *((int(self.keys), int(self.width)) if known else ()))

    def runtime_spans(self) -> list[tuple[Row, Row]]:
        """Where to cut a query whose length is known only at run time: at i * length // parts."""
        length, inner = self.length(), []
        for i in range(1, self.parts):
            times = self.emit(mb.mul, x=length, y=np.int32(i))
            inner.append(self.emit(mb.floor_div, x=times, y=np.int32(self.parts)))
        return list(zip([np.int32(0), *inner], [*inner, length], strict=True))

    def length(self) -> Any:
        """Rows of the query, as a scalar of the program."""
        rank = len(self.query.shape)
        shape = self.emit(mb.shape, x=self.query)
        return self.emit(
            mb.slice_by_index, x=shape, begin=[rank - 2], end=[rank - 1], squeeze_mask=[True]
        )

    # --- rows of a tensor ----------------------------------------------------------------------

    def rows_for(self, x: Any, start: Row, end: Row) -> Any:
        """The part of x, which broadcasts to the scores, that their rows start to end use."""
        if len(x.shape) < 2 or x.shape[-2] == 1:
            return x
        if is_symbolic(x.shape[-2]) and x.shape[-2] != self.query.shape[-2]:
            return self.rows_or_one(x, start, end)
        return self.rows(x, start, end)

    def rows(self, x: Any, start: Row, end: Row) -> Any:
        """x[..., start:end, :]"""
        if end is None or (isinstance(end, int) and (start, end) == (0, x.shape[-2])):
            return x
        return self.slice(x, self.index(x, start), self.index(x, end))

    def rows_or_one(self, x: Any, start: Row, end: Row) -> Any:
        """The same, for an x that may have a single row at run time, which is then taken."""
        if end is None:
            return x
        shape = self.emit(mb.shape, x=x)
        last = self.emit(mb.sub, x=shape, y=np.int32(1))
        begin = self.emit(mb.minimum, x=self.index(x, start), y=last)
        return self.slice(x, begin, self.emit(mb.minimum, x=self.index(x, end), y=shape))

    def slice(self, x: Any, begin: Any, end: Any) -> Any:
        """Cut x along its rows.  begin, end: one number per dimension; only the rows' count."""
        rank = len(x.shape)
        whole = [i != rank - 2 for i in range(rank)]
        return self.emit(
            mb.slice_by_index, x=x, begin=begin, end=end, begin_mask=whole, end_mask=whole
        )

    def index(self, x: Any, row: Row) -> Any:
        """The row number repeated for each dimension of x, as `slice` takes it."""
        if isinstance(row, int | np.integer):
            return np.full(len(x.shape), row, np.int32)
        return self.emit(mb.add, x=np.zeros(len(x.shape), np.int32), y=row)


class Slicer(Pieces):
    """The fused op, `scaled_dot_product_attention`."""

    form = "fused"

    def __init__(self, op: Any, parts: int) -> None:
        super().__init__(parts)
        self.ops = [op]
        self.query, self.key, self.value, self.mask = op.query, op.key, op.value, op.attn_mask
        self.keys, self.width = op.key.shape[-2], op.value.shape[-1]

    def unsliceable(self) -> str:
        if is_symbolic(self.query.shape[-1]):
            return "the head's width is known at run time only, and so is the scale"
        if self.query.val is not None and self.key.val is not None:
            return "query and key are constants: their scores would be stored as weights"
        if self.mask is not None and not _broadcasts(self.mask.shape, self.score_shape):
            return f"the mask {_text(self.mask.shape)} is wider than the scores"
        return ""

    def hold_inputs(self) -> None:
        self.mask = self.hold(self.mask)

    @property
    def score_shape(self) -> tuple[Any, ...]:
        return (*self.query.shape[:-1], self.keys)

    def whole(self) -> Any:
        mask = {} if self.mask is None else {"attn_mask": self.mask}
        inputs = {"query": self.query, "key": self.key, "value": self.value}
        return self.emit(mb.scaled_dot_product_attention, **inputs, **mask)

    def piece(self, start: Row, end: Row) -> Any:
        scores = self.scores(self.scaled(self.rows(self.query, start, end)))
        weights = self.weights(self.masked(scores, start, end))
        return self.emit(mb.matmul, x=weights, y=self.value)

    def scale(self) -> float:
        return 1 / math.sqrt(self.query.shape[-1])

    def scaled(self, query: Any) -> Any:
        """The query times the scale.

        After the product the scale would come too late in half precision: products of large heads
        overflow even where the scaled scores do not.
        """
        return self.emit(mb.mul, x=query, y=_numpy(query)(self.scale()))

    def scores(self, query: Any) -> Any:
        return self.emit(mb.matmul, x=query, y=self.key, transpose_y=True)

    def masked(self, scores: Any, start: Row, end: Row) -> Any:
        if self.mask is None:
            return scores
        mask = self.mask_rows(start, end)
        if mask.dtype == types.bool:
            return self.choose(mask, scores)
        # If the types differ, add in the wider one.  In half precision the lowest float32 number of
        # a mask would become minus infinity, and a row full of it NaN.
        wide = "fp32" if types.fp32 in (mask.dtype, scores.dtype) else "fp16"
        return self.emit(mb.add, x=self.cast(scores, wide), y=self.cast(mask, wide))

    def mask_rows(self, start: Row, end: Row) -> Any:
        """The mask's rows for a piece, without leading dimensions that the query lacks."""
        mask = self.rows_for(self.mask, start, end)
        extra = len(mask.shape) - len(self.query.shape)
        return mask if extra <= 0 else self.emit(mb.squeeze, x=mask, axes=list(range(extra)))

    def choose(self, visible: Any, scores: Any) -> Any:
        """Hide scores by minus infinity: a scalar, not a constant of the mask's size."""
        return self.emit(mb.select, cond=visible, a=scores, b=_numpy(scores)(-np.inf))

    def weights(self, scores: Any) -> Any:
        return self.cast(
            self.emit(mb.softmax, x=scores, axis=-1), types.builtin_to_string(self.value.dtype)
        )

    def cast(self, x: Any, dtype: str) -> Any:
        """x in the dtype; x itself if it has that dtype already."""
        same = types.builtin_to_string(x.dtype) == dtype
        return x if same else self.emit(mb.cast, x=x, dtype=dtype)


def _broadcasts(shape: tuple[Any, ...], to: tuple[Any, ...]) -> bool:
    """False if `shape` cannot broadcast to `to` without making it larger."""
    extra = len(shape) - len(to)
    for have, want in zip(shape[max(extra, 0) :], to[max(-extra, 0) :], strict=True):
        if not is_symbolic(have) and not is_symbolic(want) and have not in (1, want):
            return False
    return all(d == 1 for d in shape[: max(extra, 0)])


def _text(shape: tuple[Any, ...]) -> str:
    return "×".join(map(str, shape))


def _numpy(x: Any) -> Any:
    """The NumPy type of a tensor's items."""
    return types.nptype_from_builtin(x.dtype)
