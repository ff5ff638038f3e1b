"""What a cache stores is what it says: in its precision, and no more slots than it needs."""

from __future__ import annotations

import pytest
import torch
from planted import cache, defect
from torch import Tensor

from harness.cases.case import parse
from harness.checks import run_check
from harness.contract import CacheShape
from harness.defects.base import Trimmed
from harness.law import Layer
from harness.results.finding import Kind, Status


class InHalf(Trimmed):
    """Keeps float16, whatever it is given, and answers in the dtype that it was given."""

    dtype = torch.float16

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        super().store(keys, values, columns, keep)
        self.keys, self.values = self.keys.to(self.dtype), self.values.to(self.dtype)

    def reset(self) -> None:
        super().reset()
        self.keys, self.values = self.keys.to(self.dtype), self.values.to(self.dtype)

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.check(k, v)
        rounded = [x.to(self.dtype).to(k.dtype) for x in (k, v)]
        self.keys, self.values = self.keys.to(k.dtype), self.values.to(k.dtype)
        return super().update(*rounded)


@pytest.mark.parametrize(
    ("check", "case"),
    [
        ("values", "mistral/chunk-4/float32/b1"),
        ("values", "mistral/prefill-3w+5/bfloat16/b1"),
        ("cache_bytes", "mistral/bytes-chunked-50w/float32/b1"),
        ("refusal", "mistral/chunk-4/float32/b3"),
    ],
)
def test_a_cache_may_say_in_which_dtype_it_stores(check: str, case: str) -> None:
    honest = run_check(cache(InHalf, stored="float16"), check, parse(case))
    assert honest.status is Status.PASS, honest.message


@pytest.mark.parametrize("case", ["gemma3/chunk-4/float32/b1", "mistral/prefill-w/float32/b1"])
def test_a_coarse_store_is_compared_layer_by_layer(case: str) -> None:
    """Logits over bfloat16 keys do not tell a window from its neighbours: the case is not blind."""

    class InBfloat(InHalf):
        dtype = torch.bfloat16

    finding = run_check(cache(InBfloat, stored="bfloat16"), "values", parse(case))
    assert finding.status is Status.PASS, finding.message


@pytest.mark.parametrize(
    ("check", "case", "kind"),
    [
        ("values", "mistral/chunk-4/float32/b1", Kind.WRONG_VALUES),
        ("cache_bytes", "mistral/bytes-chunked-50w/float32/b1", Kind.BYTES_TOO_FEW),
    ],
)
def test_one_that_does_not_say_so_is_broken(check: str, case: str, kind: Kind) -> None:
    assert run_check(cache(InHalf), check, parse(case)).kind is kind


@pytest.mark.parametrize("schedule", ["bytes-prefill-50w", "bytes-chunked-50w"])
def test_a_buffer_for_the_whole_context_is_too_large_however_it_is_filled(schedule: str) -> None:
    finding = run_check(
        defect("FullBuffer"), "cache_bytes", parse(f"mistral/{schedule}/float32/b1")
    )
    assert finding.kind is Kind.BYTES_TOO_MANY


class Roomy(Trimmed):
    """Allocates the window and the longest chunk ahead, and no more for a longer context."""

    def __init__(self, layer: Layer, shape: CacheShape) -> None:
        slots = layer.slots(shape.max_context, shape.max_chunk)
        self.room = torch.zeros(2, shape.batch, shape.n_kv_heads, slots, shape.head_dim)
        super().__init__(layer, shape)

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        n = int(keep.sum())
        self.room[0, :, :, :n], self.room[1, :, :, :n] = keys[:, :, keep], values[:, :, keep]
        self.keys, self.values = self.room[0, :, :, :n], self.room[1, :, :, :n]
        self.kept = columns[keep]

    def nbytes(self) -> int:
        return self.room.nbytes


@pytest.mark.parametrize("schedule", ["bytes-prefill-50w", "bytes-chunked-50w"])
def test_room_for_the_longest_chunk_is_not_too_large(schedule: str) -> None:
    case = parse(f"mistral/{schedule}/float32/b1")
    finding = run_check(cache(Roomy), "cache_bytes", case)
    assert finding.kind is not Kind.BYTES_TOO_MANY, finding.message
