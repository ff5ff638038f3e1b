"""The converted decoder: what its states hold, and that a fault in it is caught by the checks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.cases.case import parse
from harness.checks import run_check
from harness.contract import Unsupported
from harness.mil.errors import MilError
from harness.mil.executorch_blob import delegated, names, unpack
from harness.mil.interpreter import program_of
from harness.results.finding import Status
from harness.schemes.static import masks
from harness.schemes.static.masks import CacheSlots
from harness.subjects.coreml import decoder as subject

CASE = parse("mistral/chunk-w+1/float32/b1")
SINKS = parse("llama3-sink4/chunk-w+1/float32/b1")


def test_states_are_those_of_the_law_in_float16() -> None:
    """The check of cache bytes counts in the case's dtype; Core ML's states have their own."""
    for case in (CASE, SINKS):
        decoder = subject.Decoder().open(case)
        decoder.feed(torch.zeros(1, 3, dtype=torch.int64))
        model = case.model
        law = [2 * 2 * model.n_kv_heads * model.head_dim * (8 + model.sink)] * model.n_layers
        assert decoder.cache_bytes() == subject.Decoder().profile(case) == law


def test_attention_is_one_op_and_the_caches_are_states() -> None:
    """Otherwise coremltools' pass would find nothing to slice in this decoder."""
    program = program_of(subject.converted(CASE.model, 1)).functions["main"]
    kinds = [op.op_type for op in program.operations]
    assert kinds.count("scaled_dot_product_attention") == CASE.model.n_layers
    assert (
        kinds.count("read_state") == kinds.count("coreml_update_state") == 2 * CASE.model.n_layers
    )


def test_predictions_are_not_claimed_here() -> None:
    with pytest.raises(Unsupported, match="needs macOS"):
        subject.DecoderPredict().open(CASE)


def drop_oldest(source: Tensor, slots: CacheSlots) -> Tensor:
    source[slots.layer.sink] = source[-1]
    return source


def store_padding(source: Tensor, _: CacheSlots) -> Tensor:
    return torch.where(source >= len(source), source.clamp(max=len(source) + 3) + 1, source).clamp(
        max=len(source) + 3
    )


def stale(source: Tensor, _: CacheSlots) -> Tensor:
    return torch.arange(len(source), dtype=torch.int32)


@pytest.mark.parametrize("fault", [drop_oldest, store_padding, stale])
@pytest.mark.parametrize("case", [CASE, SINKS], ids=lambda case: case.model.name)
def test_a_key_in_the_wrong_slot_is_caught(
    fault: Callable[..., Tensor], case: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = subject.source_of
    monkeypatch.setattr(subject, "source_of", lambda slots, n: fault(right(slots, n), slots))
    assert run_check(subject.Decoder, "values", case).status == Status.FAIL


def wider(slots: CacheSlots, positions: Tensor) -> Tensor:
    keys = torch.cat((slots.positions, positions))
    near = positions[:, None] - keys[None, :]
    assert slots.layer.window is not None
    return (near >= 0) & (keys >= 0) & (near < slots.layer.window + 1)


def future(slots: CacheSlots, positions: Tensor) -> Tensor:
    return slots.visible(positions) | (torch.cat((slots.positions, positions)) == positions[-1])


@pytest.mark.parametrize("fault", [wider, future])
def test_a_wrong_mask_is_caught(
    fault: Callable[[CacheSlots, Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(CacheSlots):
        def visible(self, chunk: Tensor) -> Tensor:
            plain = CacheSlots(self.layer, len(self.positions), self.style)
            plain.positions = self.positions
            return fault(plain, chunk)

    monkeypatch.setattr(masks, "CacheSlots", Faulty)
    found = run_check(subject.Decoder, "values", CASE)
    assert found.status == Status.FAIL, found.message
    assert "blind" not in found.message


def test_states_that_two_decoders_share_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    case = parse("mistral/chunk-w+1/float32/b1")
    shared: dict[str, Any] = {}

    class Shared(subject.Interpreted):
        def reset(self) -> None:
            super().reset()
            self.states = shared.setdefault("states", self.states)

    monkeypatch.setattr(subject, "Interpreted", Shared)
    one, other = subject.Decoder().open(case), subject.Decoder().open(case)
    tokens = torch.arange(8)[None]
    alone = one.feed(tokens)
    one.reset()
    one.feed(tokens[:, :4])
    other.feed(tokens[:, 4:])
    assert not one.feed(tokens[:, 4:]).equal(alone[:, 4:])


# ── out of a delegate ───────────────────────────────────────────────────────────────────────────


def test_bytes_that_are_no_delegate_are_refused(tmp_path: Any) -> None:
    for blob in (b"", b"nothing of the kind", b"}{"):
        with pytest.raises(
            MilError, match=f"no footer at the end of the delegate's {len(blob)} bytes"
        ):
            unpack(blob, tmp_path)


def test_a_blob_is_unpacked_within_its_folder(tmp_path: Any) -> None:
    """Names in a footer cannot write outside the folder."""
    footer = (
        '{"nodes": [{"kind": 0, "dataRegion": {"offset": 0, "size": 2}},'
        ' {"kind": 1, "children": {"Manifest.json": 0}},'
        ' {"kind": 1, "children": {"../../x.mlpackage": 1}}]}'
    )
    package = unpack(b"{}" + footer.encode()[::-1], tmp_path / "inside")
    assert package == tmp_path / "inside" / "x.mlpackage"
    assert (package / "Manifest.json").read_text() == "{}"


def blob_of(*nodes: Any, content: bytes = b"{}") -> bytes:
    return content + json.dumps({"nodes": nodes}).encode()[::-1]


def folder(**children: int) -> dict[str, Any]:
    return {"kind": 1, "children": children}


FILE = {"kind": 0, "dataRegion": {"offset": 0, "size": 2}}


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([], "nodes in the delegate's footer must be a list with at least the root"),
        ([FILE, folder(**{"..": 0})], "must have a name, got '..'"),
        ([FILE, folder(**{"a/..": 0})], "must have a name, got 'a/..'"),
        ([FILE, folder(**{"..": 0}), folder(**{"..": 1})], "must have a name, got '..'"),
        ([FILE, folder(**{".": 0})], "must have a name, got '.'"),
        ([FILE, folder(**{"": 0})], "must have a name, got ''"),
        ([FILE, folder(a=1)], "one of 2 nodes, which no other names, got 1"),
        ([FILE, folder(a=0, b=0)], "one of 2 nodes, which no other names, got 0"),
        ([folder(a=-1)], "one of 1 nodes, which no other names, got -1"),
        ([folder(a=7)], "one of 1 nodes, which no other names, got 7"),
        ([folder(a="x")], "the delegate's footer is damaged: TypeError"),
        ([{"kind": 1}], "the delegate's footer is damaged: KeyError: 'children'"),
        (["x"], "the delegate's footer is damaged: TypeError"),
        ([{"kind": 1, "children": 3}], "the delegate's footer is damaged: AttributeError"),
        ([{"kind": 0, "dataRegion": {"offset": -9, "size": 2}}], "bytes, got 2 at -9"),
        ([{"kind": 0, "dataRegion": {"offset": 0, "size": 9999}}], "bytes, got 9999 at 0"),
    ],
)
def test_a_footer_that_is_no_tree_of_files_is_refused(
    nodes: list[Any], message: str, tmp_path: Any
) -> None:
    """It is refused in one line, and nothing is written beside the folder."""
    inside = tmp_path / "a" / "inside"
    with pytest.raises(MilError) as caught:
        unpack(blob_of(*nodes), inside)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert {path for path in tmp_path.rglob("*") if inside not in [path, *path.parents]} <= {
        tmp_path / "a"
    }


def test_a_footer_of_another_kind_is_no_footer(tmp_path: Any) -> None:
    for footer in ("[" * 100_000, "3", '{"nodes": 3}', '{"nodes": {}}'):
        with pytest.raises(MilError, match="footer"):
            unpack(footer.encode()[::-1], tmp_path)


def test_a_program_with_kernels_is_refused() -> None:
    """A part that was not delegated would not run in Core ML."""
    from harness.subjects.executorch import lowering

    class Add(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + x

    exported = torch.export.export(Add(), (torch.ones(3),))
    entry = lowering.lower({"forward": exported}, "portable")
    with pytest.raises(MilError, match=r"must be one call of CoreMLBackend; it has .*aten::add"):
        delegated(entry.payload)


def test_a_delegated_program_is_found_with_its_names(tmp_path: Any) -> None:
    from harness.mil.interpreter import load, run
    from harness.subjects.executorch.coreml import lower

    class Weighted(torch.nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return y - 2 * x, x

    x, y = torch.rand(3), torch.rand(3)
    model = delegated(lower(torch.export.export(Weighted(), (x, y))).payload)
    package = unpack(model.blob, tmp_path)
    program = load(str(package))
    outputs = model.call([x.numpy(), y.numpy()], lambda given: run(program, given), names(package))
    assert torch.from_numpy(outputs[0]).equal(y - 2 * x)
    assert torch.from_numpy(outputs[1]).equal(x)  # which no op of the program makes
