"""Peak bytes of MIL blocks: by hand, by the three bounds, and what the scores of attention cost."""

from __future__ import annotations

from typing import Any

import coremltools as ct
import numpy as np
import pytest
from coremltools.converters.mil import mil
from coremltools.converters.mil.mil import types

from harness.mil.liveness import Peak, peak
from harness.mil.values import declared_bytes

mb, IOS18 = mil.Builder, ct.target.iOS18
HEADS, WIDTH = 32, 64


def bounds(program: Any) -> Peak:
    return peak(program.functions["main"])


def chain(n: int) -> Any:
    """A value x of 1 KiB passed through n ops, each of which reads the output of the one before."""

    @mb.program(input_specs=[mb.TensorSpec((256,))], opset_version=IOS18)
    def program(x: Any) -> Any:
        for i in range(n):
            x = mb.add(x=x, y=1.0, name=f"link{i}")
        return x

    return program


def attention(length: int, divider: int | None, dtype: Any = types.fp16) -> Any:
    """Attention of 32 heads over `length` positions: one op, or chunks of queries by hand."""
    shape = (1, HEADS, length, WIDTH)
    size = -(-length // (divider or 1))

    @mb.program(input_specs=[mb.TensorSpec(shape, dtype) for _ in range(3)], opset_version=IOS18)
    def program(q: Any, k: Any, v: Any) -> Any:
        if divider is None:
            return mb.scaled_dot_product_attention(query=q, key=k, value=v)
        out = []
        for at in range(0, length, size):
            part = (1, HEADS, min(size, length - at), WIDTH)
            some = mb.slice_by_size(x=q, begin=(0, 0, at, 0), size=part)
            weights = mb.softmax(x=mb.matmul(x=some, y=k, transpose_y=True), axis=-1)
            out.append(mb.matmul(x=weights, y=v))
        return mb.concat(values=out, axis=2)

    return program


@pytest.mark.parametrize(("links", "buffers"), [(1, 1), (2, 2), (9, 2)])
def test_a_chain_holds_what_it_reads_and_what_it_writes(links: int, buffers: int) -> None:
    found = bounds(chain(links))
    assert found.outputs_only.nbytes == found.fused.nbytes == buffers * 1024
    assert found.bytes_written == found.written["add"] == links * 1024


def test_a_value_lives_until_its_last_reader() -> None:
    @mb.program(input_specs=[mb.TensorSpec((256,))], opset_version=IOS18)
    def program(x: Any) -> Any:
        first = mb.exp(x=x, name="first")
        y = mb.tanh(x=mb.tanh(x=first, name="second"), name="third")
        return mb.add(x=y, y=first, name="sum")

    found = bounds(program).outputs_only
    assert found.nbytes == 3 * 1024
    assert found.at == "tanh third"
    assert {(b.name, b.last_reader) for b in found.live} == {
        ("first", "sum"),
        ("second", "third"),
        ("third", "sum"),
    }
    assert "tanh third" in found.table()
    assert all(name in found.table() for name in ("first", "second", "third", "1,024", "fp32 256"))


def test_what_is_returned_lives_to_the_end() -> None:
    @mb.program(input_specs=[mb.TensorSpec((256,))], opset_version=IOS18)
    def program(x: Any) -> Any:
        early = mb.exp(x=x)
        return early, mb.tanh(x=mb.tanh(x=x))

    assert bounds(program).outputs_only.nbytes == 3 * 1024


def test_weights_are_counted_apart() -> None:
    @mb.program(input_specs=[mb.TensorSpec((1, 8))], opset_version=IOS18)
    def program(x: Any) -> Any:
        return mb.linear(x=x, weight=np.ones((4, 8), np.float32), bias=np.ones(4, np.float32))

    found = bounds(program)
    assert found.weights == 4 * (4 * 8 + 4)
    assert found.outputs_only.nbytes == 4 * 4


def test_a_branch_costs_its_dearer_side() -> None:
    @mb.program(input_specs=[mb.TensorSpec((256,))], opset_version=IOS18)
    def program(x: Any) -> Any:
        pred = mb.greater(x=mb.reduce_sum(x=x, axes=[0]), y=0.0)
        return mb.cond(
            pred=pred,
            _true_fn=lambda: mb.exp(x=x),
            _false_fn=lambda: mb.tanh(x=mb.tanh(x=mb.tanh(x=mb.add(x=x, y=[1.0] * 256)))),
        )

    # Inside: two links of the chain; outside: the branch's result and the condition, a byte.
    found = bounds(program)
    assert found.outputs_only.nbytes == 2 * 1024 + 1024 + 1
    # A run writes one branch, and no constants.
    branch = {"add": 1024, "tanh": 3 * 1024}
    assert found.written == branch | {"reduce_sum": 4, "greater": 1, "cond": 1024}


def test_the_fused_op_is_free_unless_its_scores_are_counted() -> None:
    """The naive bound alone would say that slicing costs memory."""
    fused, sliced = bounds(attention(512, None)), bounds(attention(512, 16))
    out, scores = HEADS * 512 * WIDTH * 2, HEADS * 512 * 512 * 2
    assert fused.outputs_only.nbytes == out < sliced.outputs_only.nbytes
    assert fused.fused.nbytes == out + 2 * scores > sliced.fused.nbytes
    assert [b.nbytes for b in fused.fused.live] == [scores, scores, out]


@pytest.mark.parametrize("length", [128, 512, 2048, 4096])
def test_slicing_saves_what_its_order_allows(length: int) -> None:
    """Peaks by formula: one chunk's two scores and all outputs so far, against all scores twice."""
    whole, sliced = bounds(attention(length, 1)), bounds(attention(length, 16))
    scores, out = HEADS * length * length * 2, HEADS * length * WIDTH * 2
    chunk = out // 16
    assert whole.outputs_only.nbytes == 2 * scores
    # At the softmax of the last chunk, or at the concat.
    last = 2 * scores // 16 + 15 * chunk
    assert sliced.outputs_only.nbytes == max(last, 2 * out)
    # Breadth first, the scores of all chunks are live at once: what is saved depends on the order.
    assert sliced.breadth_first.nbytes >= scores > sliced.outputs_only.nbytes / 2
    assert sliced.written["concat"] == out


def test_a_dynamic_shape_is_no_number() -> None:
    length = ct.converters.mil.mil.get_new_symbol()

    @mb.program(input_specs=[mb.TensorSpec((length, 2))], opset_version=IOS18)
    def program(x: Any) -> Any:
        return mb.exp(x=x, name="grown")

    with pytest.raises(ValueError, match="grown has the dynamic shape"):
        bounds(program)


def test_materialised_scores_show_as_a_ratio() -> None:
    """The regression of a 10 GB model: what is sliced must not need all scores."""
    sliced = bounds(attention(2048, 16)).outputs_only.nbytes
    assert bounds(attention(2048, 1)).outputs_only.nbytes / sliced > 12
    assert bounds(attention(2048, 2)).outputs_only.nbytes / sliced > 6  # half slicing is none


def test_nothing_is_live_in_an_empty_block() -> None:
    @mb.program(input_specs=[mb.TensorSpec((4,))], opset_version=IOS18)
    def program(x: Any) -> Any:
        return x

    found = bounds(program)
    assert found.outputs_only.nbytes == found.bytes_written == 0
    assert found.weights == 0


@pytest.mark.parametrize(("n", "nbytes"), [(1, 1), (2, 1), (3, 2), (15, 8)])
def test_an_odd_count_of_int4_fills_a_whole_byte(n: int, nbytes: int) -> None:
    @mb.program(input_specs=[mb.TensorSpec((n,))], opset_version=IOS18)
    def program(x: Any) -> Any:
        data = np.zeros(n, types.np_int4_dtype)
        scale = np.ones(1, np.float32)
        return mb.add(x=x, y=mb.constexpr_blockwise_shift_scale(data=data, scale=scale))

    op = program.functions["main"].find_ops(op_type="constexpr_blockwise_shift_scale")[0]
    assert declared_bytes(op.data) == nbytes
