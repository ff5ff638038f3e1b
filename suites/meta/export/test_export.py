"""The export check on our graphs, and what it refuses and catches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from harness import checks
from harness.cases.case import Case, parse
from harness.checks.drive import tokens_for
from harness.checks.export import export
from harness.contract import Decoder, Unsupported
from harness.defects.exported import OffOnceExported, SinkGraph, SpecializedOnOneLength
from harness.export.exportable import Exportable, by_shape
from harness.results.finding import Status
from harness.schemes.sink.model import SinkIO, SinkLayout
from harness.schemes.static.cache import StaticLayout, model_cache_lens
from harness.subjects.own import exported as own

CHUNKS = parse("mistral/chunk-4/float32/b1")  # 51 tokens: three wraps, and a last chunk of 3
DECODE = parse("llama3-sink2/decode-3wraps/float32/b1")
REWIND = parse("llama3-sink2/rewind-3-of-long/float32/b1")
RESET = parse("llama3-sink2/reset-after-3wraps/float32/b1")


class Static:
    """This package's static scheme, eager: prefill chunks of 4 and decode steps."""

    name = "static"
    schemes = frozenset({"uniform", "interleaved"})

    def layout(self, case: Case) -> StaticLayout:
        return StaticLayout(case.model, model_cache_lens(case.model, case.max_context + 4, 4))

    def open(self, case: Case) -> Decoder:
        what = self.exportable(case)
        return what.drive(what.module)

    def exportable(self, case: Case) -> Exportable:
        layout = replace(self.layout(case), dtype=getattr(torch, case.dtype))
        return own.static_exportable(case, layout, (4, 1))


@pytest.mark.parametrize(
    ("subject", "case"),
    [(Static, CHUNKS), (SinkGraph, CHUNKS), (SinkGraph, DECODE), (SinkGraph, RESET)],
)
def test_our_schemes_export(subject: type[Any], case: Case) -> None:
    if not case.schedule.plain:
        with pytest.raises(Unsupported, match="reset or rewind"):
            export(subject(), case)
        return
    finding = export(subject(), case)
    assert finding.status is Status.PASS, finding.message
    assert finding.bytes["live_bytes"] > 0
    assert finding.margin is not None


@pytest.mark.parametrize(
    ("check", "case"),
    [("values", CHUNKS), ("values", DECODE), ("reset", RESET), ("rewind", REWIND)],
)
def test_the_sink_graph_is_right_before_it_is_exported(check: str, case: Case) -> None:
    finding = checks.run_check(SinkGraph, check, case)
    assert finding.status is Status.PASS, finding.message
    assert "refused" not in finding.message


def test_bytes_of_a_sink_graph_are_those_of_its_buffers() -> None:
    what = own.sink_exportable(DECODE)
    layout = own.sink_layout(DECODE, DECODE.window + 1)
    held = sum(buffer.nbytes for buffer in what.module.buffers())
    assert sum(layout.layer_bytes(i) for i in range(DECODE.model.n_layers)) == held
    assert what.drive(what.module).cache_bytes() == [held // 2] * 2


def test_a_sink_run_refuses_a_rewind_past_what_is_held_and_bad_tokens() -> None:
    layout = SinkLayout(DECODE.model, 9)
    io = SinkIO(layout, own.sink_module(DECODE, layout), DECODE.vocab)
    io.feed(tokens_for(DECODE)[:, :40])
    with pytest.raises(ValueError, match="has been overwritten"):
        io.rewind(5)
    with pytest.raises(ValueError, match="token ids"):
        io.feed(torch.full((1, 2), 64))
    assert io.length == 40
    assert io.plan(0, 30) == [9, 9, 9, 3]  # max_chunk, then the room that a full ring has
    with pytest.raises(ValueError, match="max_chunk"):
        SinkLayout(DECODE.model, 0)
    with pytest.raises(Unsupported, match="layers with a window"):
        own.sink_layout(parse("gemma3/chunk-4/float32/b1"), 9)


def test_a_program_that_answers_otherwise_is_caught_at_its_first_position() -> None:
    finding = export(OffOnceExported(), CHUNKS)
    assert finding.status is Status.FAIL
    assert finding.first_bad == 11
    assert "static programs" in finding.message


def test_a_program_of_one_length_does_not_pass_for_dynamic() -> None:
    assert checks.run_check(SpecializedOnOneLength, "values", CHUNKS).status is Status.PASS
    with pytest.raises(Exception, match=r"shape|size|Guard"):
        export(SpecializedOnOneLength(), CHUNKS)


def test_a_subject_without_a_graph_claims_nothing() -> None:
    class Bare(SinkGraph):
        exportable = None  # type: ignore[assignment]  # as if it did not have the optional member

        def open(self, case: Case) -> Decoder:
            return SinkGraph().open(case)

    with pytest.raises(Unsupported, match="no graph"):
        export(Bare(), CHUNKS)


def test_a_call_of_other_shapes_is_refused_by_name() -> None:
    what = own.sink_exportable(DECODE)
    graph = by_shape(what, what.export_static())
    with pytest.raises(ValueError, match=r"shapes \(\(1, 2\), \(2,\)\)"):
        graph(torch.zeros(1, 2, dtype=torch.int64), torch.arange(2))
    with pytest.raises(ValueError, match="static shapes only"):
        replace(what, dynamic=None).export_dynamic()
