"""Faults planted in the sliced-Q pass, each one overridden step of `Slicer`, and what catches them.

`BATTERY` holds the forms that show them: lengths that are not a multiple of the divider, masks with
rows and batch rows of their own, half precision that overflows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from coremltools.converters.mil.mil import types

from harness.schemes.sliced_q.chunks import Span
from harness.schemes.sliced_q.mil_pass import SlicedQ
from harness.schemes.sliced_q.slicer import Row, Slicer, mb
from harness.subjects.coreml.sliced_q_judge import problem
from harness.subjects.coreml.sliced_q_programs import Form, own, sliced


class RemainderDropped(Slicer):
    """The rows past parts * (length // parts) get the answers of the rows just before them."""

    def write(self, spans: list[Any]) -> Any:
        length, size = spans[-1][1], spans[-1][1] // len(spans)
        whole = [(i * size, (i + 1) * size) for i in range(len(spans))]
        left = length - len(spans) * size
        return super().write([*whole, *([(length - 2 * left, length - left)] if left else [])])


class OffByOne(Slicer):
    """Each piece but the last starts and ends one row late."""

    def piece(self, start: Row, end: Row) -> Any:
        late = int(isinstance(end, int) and end < int(self.query.shape[-2]))
        return super().piece(start + late, end + late)


class MaskNotSliced(Slicer):
    """Every piece gets the first rows of the mask."""

    def mask_rows(self, start: Row, end: Row) -> Any:
        return super().mask_rows(0, end - start)


class ScaledTwice(Slicer):
    """The scale is applied to the query and to the scores."""

    def scores(self, query: Any) -> Any:
        scores = super().scores(query)
        return self.emit(mb.mul, x=scores, y=_number(scores, self.scale()))


class ScaledAfterProduct(Slicer):
    """The scale is applied after the product, which overflows in half precision."""

    def scaled(self, query: Any) -> Any:
        return query

    def scores(self, query: Any) -> Any:
        scores = super().scores(query)
        return self.emit(mb.mul, x=scores, y=_number(scores, self.scale()))


class JoinedAlongHeads(Slicer):
    """The pieces are joined along the heads, and the result is reshaped to fit."""

    def join(self, pieces: list[Any]) -> Any:
        if len({tuple(piece.shape) for piece in pieces}) > 1:
            return super().join(pieces)  # pieces of unequal length do not join that way
        joined = self.emit(mb.concat, values=pieces, axis=len(pieces[0].shape) - 3)
        return self.emit(mb.reshape, x=joined, shape=np.array(self.old.shape, np.int32))


class LastPieceTwice(Slicer):
    """The last piece is also used in place of the one before it."""

    def write(self, spans: list[Any]) -> Any:
        *others, last = spans
        if others:
            rows = others[-1][1] - others[-1][0]
            others[-1] = (last[1] - rows, last[1])
        return super().write([*others, last])


class MaskOfFirstBatchRow(Slicer):
    """The first batch row's mask is used for all."""

    def mask_rows(self, start: Row, end: Row) -> Any:
        mask = super().mask_rows(start, end)
        rank = len(mask.shape)
        if rank < len(self.query.shape):
            return mask
        end_at = np.array([1] + [0] * (rank - 1), np.int32)
        whole = [False] + [True] * (rank - 1)
        return self.emit(
            mb.slice_by_index, x=mask, begin=np.zeros(rank, np.int32), end=end_at, end_mask=whole
        )


class BoolMaskInverted(Slicer):
    """True in a bool mask is read as hidden."""

    def choose(self, visible: Any, scores: Any) -> Any:
        return super().choose(self.emit(mb.logical_not, x=visible), scores)


class HalfAccumulated(Slicer):
    """The product of query and key is summed in half precision."""

    def scores(self, query: Any) -> Any:
        own = types.builtin_to_string(query.dtype)
        product = self.emit(
            mb.matmul, x=self.cast(query, "fp16"), y=self.cast(self.key, "fp16"), transpose_y=True
        )
        return self.cast(product, own)


class ScoresMaterialised(Slicer):
    """Correct, but useless: the scores of all rows exist before they are cut.

    With this regression a converted model once asked for 10 GB; only bytes show it.
    """

    whole_scores: Any = None

    def write(self, spans: list[Span]) -> Any:
        self.whole_scores = self.scores(self.scaled(self.query))
        return super().write(spans)

    def piece(self, start: Row, end: Row) -> Any:
        scores = self.rows(self.whole_scores, start, end)
        weights = self.weights(self.masked(scores, start, end))
        return self.emit(mb.matmul, x=weights, y=self.value)


def _number(x: Any, value: float) -> Any:
    return types.nptype_from_builtin(x.dtype)(value)


#: Faults that give a wrong answer.
FAULTS: tuple[type[Slicer], ...] = (
    RemainderDropped,
    OffByOne,
    MaskNotSliced,
    ScaledTwice,
    ScaledAfterProduct,
    JoinedAlongHeads,
    LastPieceTwice,
    MaskOfFirstBatchRow,
    BoolMaskInverted,
    HalfAccumulated,
)


def _form(**changes: Any) -> Form:
    sizes = {"query": (2, 2, 130, 8), "key": (2, 2, 9, 8), "value": (2, 2, 9, 8)}
    return Form(**(sizes | changes))


#: (form, divider, the value of all queries and keys; None: random numbers)
BATTERY: tuple[tuple[Form, int, float | None], ...] = (
    (_form(), 16, None),
    (_form(query=(2, 2, 128, 8)), 16, None),
    (_form(mask=(2, 1, 130, 9)), 16, None),
    (_form(mask=(130, 9), mask_dtype="float32"), 7, None),
    (_form(dtype="float16", mask=(9,), mask_dtype="float16"), 16, None),
    (
        Form((1, 1, 64, 64), (1, 1, 64, 64), (1, 1, 64, 64), "float16"),
        16,
        32.0,  # 32 * 32 * 64 is past the largest number, 32 * 32 * 64 / 8 is not
    ),
)


def planted(fault: type[Slicer]) -> type[SlicedQ]:
    """The pass with a fault."""
    return type(fault.__name__, (SlicedQ,), {"slicer": fault, "__doc__": fault.__doc__})


def problems(kind: type[SlicedQ]) -> Iterator[tuple[Form, str]]:
    """What the battery finds wrong with a pass: the forms that break, and how."""
    for form, divider, level in BATTERY:
        try:
            found = problem(form, sliced(form, own(1, divider, kind)), level=level)
        except Exception as error:  # a fault may also raise, and is then broken too
            found = f"{type(error).__name__}: {error}"
        if found:
            yield form, found
