"""Metadata of static programs, and lowered programs that are fed by it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from harness import checks
from harness.cases.case import Case, parse
from harness.cases.models import tiny
from harness.cases.schedules import Schedule, chunks
from harness.checks.bounds import reference_for
from harness.checks.drive import run_decoder, tokens_for
from harness.checks.export import export
from harness.contract import Unsupported
from harness.export.exportable import Exportable, Graph, quiet
from harness.export.program_cache import FOLDER_VARIABLE, Entry
from harness.reference.tolerance import row_error
from harness.results.finding import Status
from harness.schemes.static.cache import StaticLayout, model_cache_lens
from harness.schemes.static.constants import FlatGraph, MethodSpecs, constant_methods
from harness.subjects.executorch import lowering
from harness.subjects.executorch.runtime import Lazy, Program
from harness.subjects.own import exported as own
from harness.subjects.own.caches import Static as OwnStatic
from harness.subjects.own.pte import SinkPte, StaticPte

CHUNKS = parse("mistral/chunk-4/float32/b1")  # 51 tokens: three wraps, and a last chunk of 3
DECODE = parse("llama3-sink2/decode-3wraps/float32/b1")
REWIND = parse("llama3-sink2/rewind-3-of-long/float32/b1")
RESET = parse("llama3-sink2/reset-after-3wraps/float32/b1")


def twelve_layers() -> tuple[Case, StaticLayout]:
    """More than ten caches of two lengths: names do not sort as layers do."""
    pattern = ("sliding_attention",) * 4 + ("full_attention",)
    types = (*pattern, *pattern, *pattern[:2])
    model = replace(tiny("gemma3"), name="twelve", layer_types=types, head_dim=4)
    case = replace(CHUNKS, model=model)
    lens = model_cache_lens(model, case.max_context + 4, 4)
    return case, StaticLayout(model, lens, split_heads=True, transpose_k=True)


def flat(graph: nn.Module, args: tuple[Any, ...]) -> Callable[[Any], list[Tensor]]:
    """An exported program as a runtime runs it: flattened inputs, flattened outputs."""
    spec = pytree.tree_structure(args)

    def execute(inputs: Any) -> list[Tensor]:
        return pytree.tree_leaves(graph(*pytree.tree_unflatten(list(inputs), spec)))

    return execute


def fed_by(constants: Mapping[str, Any], what: Exportable, methods: dict[str, Any]) -> FlatGraph:
    args = what.methods
    return FlatGraph({m: flat(methods[m], args[m]) for m in args}, constants.__getitem__)


def test_metadata_alone_feeds_two_methods_over_more_than_ten_caches() -> None:
    case, layout = twelve_layers()
    what = own.static_exportable(case, layout, (4, 1))
    constants = constant_methods(layout, own.static_methods((4, 1)))
    specs = MethodSpecs.read("prefill", constants.__getitem__)
    assert {name: row[-1] for name, row in specs.caches.items()} == {
        name: layout.cache_len(i) for i in range(12) for name in layout.cache_names(i)
    }
    assert specs.n_inputs == len(pytree.tree_leaves(what.methods["prefill"]))
    graphs = {name: program.module() for name, program in what.export_static().items()}
    tokens = tokens_for(case)
    eager = run_decoder(what.drive(what.module), tokens, case.schedule).logits
    run = run_decoder(what.drive(fed_by(constants, what, graphs)), tokens, case.schedule)
    assert run.logits.equal(eager)

    rows = constants["decode_kv_cache_specs"]
    assert isinstance(rows, Tensor)
    swapped = rows.clone()  # outputs of two layers' keys, as if "l10" stood before "l2"
    places = [list(specs.caches).index(name) for name in ("l1h0", "l10h0")]
    swapped[places, 1] = rows[places[::-1], 1]
    wrong = fed_by({**constants, "decode_kv_cache_specs": swapped}, what, graphs)
    steps = tokens_for(case)[:, :9]
    decode = Schedule("nine steps", chunks(9, (1,)))
    eager = run_decoder(what.drive(what.module), steps, decode).logits
    differs = run_decoder(what.drive(wrong), steps, decode).logits != eager
    assert differs.any(-1)[0].tolist() == [False] + [True] * 8  # from the first key in a cache on


def test_methods_are_named_by_their_number() -> None:
    assert own.static_methods((4,)) == {"forward": 4}
    assert own.static_methods((1, 8)) == {"prefill": 8, "decode": 1}
    with pytest.raises(ValueError, match="one or two lengths"):
        own.static_methods((1, 2, 4))


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of programs, on disk and in this process."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(lowering, "_memory", {})
    return tmp_path


class Counter(nn.Module):
    """One buffer that starts at 5 and grows by the input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.full((4,), 5.0))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.count.add_(x)
        return {"now": self.count * 1}


@pytest.fixture(scope="module")
def counter() -> Entry:
    with quiet():
        program = torch.export.export(Counter(), (torch.ones(4),), strict=False)
    return lowering.lower({"forward": program}, "portable", initialised=["count"])


def test_bytes_of_a_tiny_program(counter: Entry) -> None:
    # Planned: input, buffer, their sum, the result; 16 bytes each, the unit of the planner.
    assert counter.facts["planned"] == {"forward": 4 * 16}
    assert counter.facts["buffers"] == {"forward": {"count": 16}}
    assert Program(counter).state_bytes("forward") == 16
    assert counter.payload[4:8] == b"ET12"


def test_every_program_starts_with_the_state_that_was_lowered(counter: Entry) -> None:
    first, second = Program(counter).graph(), Program(counter).graph()
    x = torch.ones(4)
    answers = [float(graph(x)["now"][0]) for graph in (first, first, second, first, second)]
    assert answers == [6, 7, 6, 8, 7]


def test_a_buffer_that_is_not_named_starts_as_zeros() -> None:
    program = torch.export.export(Counter(), (torch.ones(4),), strict=False)
    graph = Program(lowering.lower({"forward": program}, "portable")).graph()
    assert graph(torch.ones(4))["now"].tolist() == [1.0] * 4  # what our positions must not do


def test_a_lazy_graph_is_made_once_and_not_before_it_is_called() -> None:
    made: list[int] = []

    def make() -> Graph:
        made.append(1)
        return lambda x: x + 1

    graph = Lazy(make)
    assert not made
    assert [graph(1), graph(2)] == [2, 3]
    assert made == [1]


def test_a_program_of_more_than_ten_layers_is_fed_by_its_own_metadata() -> None:
    case, _ = twelve_layers()
    case = replace(case, model=replace(case.model, layer_types=case.model.layer_types[:11]))
    layout = StaticLayout(case.model, model_cache_lens(case.model, case.max_context + 4, 4))
    what, methods = own.static_exportable(case, layout, (4,)), own.static_methods((4,))
    constants = constant_methods(layout, methods)
    program = Program(lowering.lower(what.export_static(), "portable", constants=constants))
    asked = MethodSpecs.read("forward", program.ask)
    assert asked == MethodSpecs.read("forward", constants.__getitem__)
    assert list(asked.caches) == [f"l{i}" for i in range(11)]
    graph = FlatGraph({name: program.execute(name) for name in program.methods}, program.ask)
    tokens = tokens_for(case)
    decoder = what.drive(graph)
    got = run_decoder(decoder, tokens, case.schedule).logits
    reference = reference_for(OwnStatic(), decoder, case, tokens)
    assert (row_error(got, reference.exact) <= reference.bound).all()


def test_prefill_and_decode_methods_of_one_program_share_the_caches(programs: Path) -> None:
    case = parse("mistral.sliding/short-prefill-by-4-then-decode/float32/b1")
    finding = checks.run_check(StaticPte, "values", case)
    assert finding.status is Status.PASS, finding.message
    assert [path.name.partition("-")[0] for path in programs.iterdir()] == ["harness.static.pte"]
    program = Program(StaticPte().lowered(case))
    assert program.methods == ("prefill", "decode")
    assert [program.ask(f"{name}_input_len") for name in program.methods] == [4, 1]


def test_a_lowered_subject_exports_nothing_once_its_program_is_there(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = parse("mistral.sliding/chunk-4/float32/b1")
    subject = SinkPte()
    first = checks.run_check(SinkPte, "values", case)
    assert first.status is Status.PASS, first.message
    assert len(list(programs.iterdir())) == 1
    lowering._memory.clear()

    monkeypatch.setattr(torch.export, "export", None)  # a call of it would raise
    finding = export(subject, case)
    assert finding.status is Status.PASS, finding.message
    assert finding.bytes == subject.program_bytes(case)
    assert finding.bytes["mutable_bytes"] == sum(subject.profile(case))
    assert finding.bytes["pte_bytes"] == len(subject.lowered(case).payload)
    state = Program(subject.lowered(case)).state_bytes("forward")
    assert state == finding.bytes["mutable_bytes"]


def test_what_programs_are_not_lowered_for_is_not_claimed() -> None:
    for subject, case in (
        (SinkPte(), CHUNKS.with_batch(3)),
        (StaticPte(), CHUNKS.with_dtype("bfloat16")),
        (StaticPte(), parse("gemma3/bytes-chunked-50w/float32/b1")),
    ):
        with pytest.raises(Unsupported):
            subject.open(case)
