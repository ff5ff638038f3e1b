"""What slicing saves, by liveness, as a ratio to one piece; and that losing it is seen.

The regression that led to it: a converted model of 128 tokens asked for 10 GB on a phone, because
its attention was not sliced.  A bound in bytes cannot fail on a small test; a ratio can.
"""

from __future__ import annotations

from typing import Any

import pytest

from harness.defects.sliced_q import ScoresMaterialised, planted
from harness.mil import liveness
from harness.schemes.sliced_q import chunks
from harness.schemes.sliced_q.mil_pass import DIVIDER, SlicedQ
from harness.subjects.coreml.sliced_q_programs import (
    DidNotFireError,
    Form,
    fused,
    own,
    shipped,
    sliced,
)

HEADS, WIDTH, ITEM = 32, 64, 2  # bytes of half precision

#: Rows -> the measured gain of the shipped pass, minus the rounding of its second digit.
SHIPPED_GAIN = {128: 2.0, 512: 8.0, 2048: 12.96, 4096: 14.32}


def form(rows: int, **changes: Any) -> Form:
    shape = (1, HEADS, rows, WIDTH)
    return Form(shape, shape, shape, "float16", **changes)


def measured(program: Any) -> liveness.Peak:
    return liveness.peak(program.functions["main"])


def after(kind: type[SlicedQ], what: Form) -> liveness.Peak:
    """The peak after the pass with its own thresholds; that of the fused op if it does not fire."""
    try:
        return measured(sliced(what, own(None, DIVIDER, kind)))
    except DidNotFireError:
        return measured(fused(what))


def gain(kind: type[SlicedQ], what: Form) -> float:
    """The peak of a single piece, divided by the peak after the pass."""
    return measured(sliced(what, own(1, 1))).fused.nbytes / after(kind, what).fused.nbytes


def expected(rows: int) -> float:
    """The gain that the cost of the cut predicts."""
    whole = chunks.peak([(0, rows)], rows, WIDTH)
    return whole / chunks.peak(chunks.split(rows, DIVIDER, rows, WIDTH), rows, WIDTH)


@pytest.mark.parametrize("rows", [128, 130, 512, 2048, 4096])
def test_the_peak_is_the_one_that_the_cut_promises(rows: int) -> None:
    spans = chunks.split(rows, DIVIDER, rows, WIDTH)
    peak = measured(sliced(form(rows), own(None, DIVIDER)))
    assert peak.fused.nbytes == chunks.peak(spans, rows, WIDTH) * HEADS * ITEM
    assert gain(SlicedQ, form(rows)) == expected(rows)


@pytest.mark.parametrize("rows", SHIPPED_GAIN)
def test_the_gain_is_no_less_than_that_of_the_shipped_pass(rows: int) -> None:
    one, many = (measured(sliced(form(rows), shipped(1, n))) for n in (1, DIVIDER))
    theirs = one.fused.nbytes / many.fused.nbytes
    assert theirs == pytest.approx(SHIPPED_GAIN[rows], abs=0.005)
    ours = gain(SlicedQ, form(rows))
    assert theirs < ours < DIVIDER if rows >= 2048 else ours == theirs


@pytest.mark.parametrize("rows", [128, 130, 2048])
def test_the_output_is_written_once_by_the_pieces_and_once_by_their_join(rows: int) -> None:
    output = HEADS * rows * WIDTH * ITEM
    assert measured(sliced(form(rows), own(None, DIVIDER))).written["concat"] == output
    # The shipped pass joins after each piece: (divider + 1) / 2 times the output.
    shipped_writes = measured(sliced(form(rows), shipped(1, DIVIDER))).written["concat"]
    assert shipped_writes > output * (DIVIDER - 1) / 2


@pytest.mark.parametrize("rows", [512, 2048])
def test_run_side_by_side_the_pieces_save_half_at_best(rows: int) -> None:
    """Nothing in a graph forces an engine to run one piece after the other."""
    peak = measured(sliced(form(rows), own(None, DIVIDER)))
    scores = HEADS * rows * rows * ITEM
    assert scores < peak.breadth_first.nbytes < 2 * scores
    assert peak.fused.nbytes < peak.breadth_first.nbytes


@pytest.mark.parametrize("mask_dtype", ["bool", "float16", "float32"])
def test_a_mask_adds_no_constants_and_little_to_the_peak(mask_dtype: str) -> None:
    what = form(2048, mask=(1, 1, 2048, 2048), mask_dtype=mask_dtype)
    before, plain = measured(fused(what)), measured(sliced(form(2048), own(None, DIVIDER)))
    peak = measured(sliced(what, own(None, DIVIDER)))
    assert peak.weights - before.weights < 2**14  # where to cut, and two scalars per piece
    largest = max(end - start for start, end in chunks.split(2048, DIVIDER, 2048, WIDTH))
    one = HEADS * largest * 2048 * ITEM  # scores of a piece
    # A float32 mask widens the scores: two buffers, each of twice the size.
    extra = {"bool": 0, "float16": 0, "float32": 2}[mask_dtype]
    rows_of_mask = largest * 2048 * 4
    assert peak.fused.nbytes <= plain.fused.nbytes + extra * one + 2 * rows_of_mask


def test_the_shipped_pass_stores_zeros_of_the_size_of_a_bool_mask() -> None:
    what = form(2048, mask=(2048, 2048))
    grown = measured(sliced(what, shipped(1, DIVIDER))).weights - measured(fused(what)).weights
    assert grown >= 2048 * 2048 * ITEM
    assert measured(sliced(what, own(None, DIVIDER))).weights < 2**14


class ThresholdBack(SlicedQ):
    """Known lengths are sliced only from 1280 rows on, like dynamic ones."""

    def __init__(self) -> None:
        super().__init__()
        self.min_seq_length = 1280

    @property
    def min_seq_length(self) -> int | None:
        return super().min_seq_length

    @min_seq_length.setter
    def min_seq_length(self, length: int | None) -> None:
        self._min_seq_length = 1280 if length is None else length


class LeftOut(SlicedQ):
    """The pass is in no pipeline: nothing is sliced."""

    def apply(self, prog: Any) -> None:
        del prog


REGRESSIONS = (ThresholdBack, LeftOut, planted(ScoresMaterialised))


@pytest.mark.parametrize("rows", [128, 512])
@pytest.mark.parametrize("regression", REGRESSIONS, ids=lambda kind: kind.__name__)
def test_a_lost_saving_shows_as_a_ratio(regression: type[SlicedQ], rows: int) -> None:
    assert gain(SlicedQ, form(rows)) >= expected(rows)
    lost = gain(regression, form(rows))
    assert lost < expected(rows), f"{regression.__name__} passes with a gain of {lost:.2f}"
