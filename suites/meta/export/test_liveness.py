"""Live bytes of exported graphs are those counted by hand and by the allocator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.cases.case import parse
from harness.export import liveness
from harness.memory import measure
from harness.schemes.static.cache import StaticLayout, model_cache_lens
from harness.subjects.own import exported as own

CHUNKS = parse("mistral/chunk-4/float32/b1")  # 51 tokens: three wraps, and a last chunk of 3
DECODE = parse("llama3-sink2/decode-3wraps/float32/b1")
REWIND = parse("llama3-sink2/rewind-3-of-long/float32/b1")
RESET = parse("llama3-sink2/reset-after-3wraps/float32/b1")

FLOATS = 256  # 1024 bytes a tensor of the tiny graphs


class Tree(nn.Module):
    """A function of its input and a buffer; no Python numbers, as kernels make tensors of them."""

    def __init__(self, compute: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.compute = compute
        self.register_buffer("state", torch.ones(FLOATS))

    def forward(self, x: Tensor) -> Any:
        return self.compute(x, self.state)


def chain(x: Tensor, state: Tensor) -> Tensor:
    a = x + state
    b = a * state  # a and b
    return b.relu()  # b and the result


def keeps_both(x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    a = x + state
    return a, (a * state).relu()  # a, the product and its relu


def half(x: Tensor, state: Tensor) -> Tensor:
    a = x + state
    b = a[: FLOATS // 2]  # a view: no bytes, but a stays
    return b.relu()


def small_of_large(x: Tensor, state: Tensor) -> Tensor:
    return (x[:, None] * state[None, :]).sum(0)


def write(x: Tensor, state: Tensor) -> Tensor:
    state.copy_(x + x)  # into what was there before
    return state.relu()


@pytest.mark.parametrize(
    ("compute", "peak"),
    [
        (chain, 2 * 1024),
        (keeps_both, 3 * 1024),
        (half, 1024 + 512),
        (small_of_large, 1024 * FLOATS + 1024),
        (write, 1024),  # the sum is gone before the product is made
    ],
)
def test_live_bytes_are_those_counted_by_hand(compute: Callable[..., Any], peak: int) -> None:
    args = (torch.ones(FLOATS),)
    program = torch.export.export(Tree(compute), args, strict=False)
    assert liveness.peak_bytes(program) == peak
    graph = program.module()
    with torch.no_grad():
        assert measure(lambda: graph(*args)).peak_bytes == peak


@pytest.mark.parametrize("name", ["mistral", "gemma4-e2b"])
def test_live_bytes_are_the_allocator_s(name: str) -> None:
    case = parse(f"{name}/chunk-4/float32/b1")
    layout = StaticLayout(case.model, model_cache_lens(case.model, 40, 4))
    what = own.static_exportable(case, layout, (4,))
    program = what.export_static()["forward"]
    graph = program.module()
    with torch.no_grad():
        measured = measure(lambda: graph(*what.methods["forward"]))
    assert liveness.peak_bytes(program) == measured.peak_bytes


def test_live_bytes_of_dynamic_shapes_are_refused() -> None:
    what = own.sink_exportable(CHUNKS)
    with pytest.raises(ValueError, match="needs static shapes"):
        liveness.peak_bytes(what.export_dynamic())
