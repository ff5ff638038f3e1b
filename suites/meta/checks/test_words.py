"""What is told is the cause: NaN is NaN, an empty row of a mask is one, what is held is held."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted import cache, decoder, defect
from torch import Tensor

from harness.cases.case import parse
from harness.checks import run_check
from harness.contract import CacheShape
from harness.defects.base import Trimmed, TrimmedSubject
from harness.law import Layer
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Kind, Status

PREFILL = "mistral/prefill-w+1/float32/b3"
CHECKS = ("visibility", "values", "purity")


class FirstQueryBlind(Trimmed):
    """A chunk overwrites the key of its own first query: the classic of a ring."""

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries, columns)
        if self.layer.window is not None and len(queries) > self.layer.window:
            mask[0] = False
        return mask


@pytest.mark.parametrize("check", CHECKS)
def test_a_mask_that_leaves_a_query_no_key_is_named_by_every_check(check: str) -> None:
    finding = run_check(cache(FirstQueryBlind), check, parse(PREFILL))
    assert finding.kind is Kind.CONTRACT_BROKEN
    assert "update() returned a mask that leaves query 0 of 9 no key" in finding.message


class NanFromSix(CacheDecoder):
    """NaN from position 6 on."""

    def feed(self, tokens: Tensor) -> Tensor:
        start, logits = self.length, super().feed(tokens)
        late = torch.arange(start, self.length) >= 6
        return torch.where(late[None, :, None], torch.nan, logits)


@pytest.mark.parametrize("check", [*CHECKS, "reset", "refusal"])
def test_nan_is_called_nan_by_every_check(check: str) -> None:
    schedule = "reset-then-chunks" if check == "reset" else "prefill-w+1"
    finding = run_check(decoder(NanFromSix), check, parse(f"mistral/{schedule}/float32/b3"))
    assert finding.kind is Kind.NOT_A_NUMBER, finding.message
    assert "NaN or" in finding.message
    for shadow in ("future", "bits", "rows of the batch", "by inf"):
        assert shadow not in finding.message


def test_nan_is_told_where_it_is() -> None:
    finding = run_check(decoder(NanFromSix), "visibility", parse(PREFILL))
    assert finding.message == "the answer is NaN or infinite at 3 queries, the first 6"
    assert finding.first_bad == 6


# --- What is held.


def _rewound(subject: type[Any]) -> Any:
    return run_check(subject, "rewind", parse("mistral/rewind-3-of-long/float32/b1"))


def test_a_rewind_that_is_refused_though_all_is_held_is_named() -> None:
    finding = _rewound(defect("RefusesHeldRewinds"))
    assert finding.kind is Kind.REFUSES_WHAT_IT_HOLDS
    assert "rewind from 28 to 25 was refused" in finding.message
    assert "returns the keys and values of all 7 positions that the next query" in finding.message
    assert finding.bytes == {"rewound": 0}


class Lossy(Trimmed):
    """Cannot rewind once something is gone, and states from where on it holds all."""

    says = 22

    def first_held(self) -> int:
        return self.says

    def rewind(self, length: int) -> None:
        raise ValueError(f"cannot rewind to {length}")


@pytest.mark.parametrize(("says", "kind"), [(22, None), (18, Kind.REFUSES_WHAT_IT_HOLDS)])
def test_a_cache_is_taken_at_its_word_of_what_it_holds(says: int, kind: Kind | None) -> None:
    """A rewind to 25 needs the keys from 18 on."""
    finding = _rewound(cache(type("Stating", (Lossy,), {"says": says})))
    assert finding.kind is kind, finding.message
    assert ("first_held() says 18" in finding.message) == (kind is not None)


@pytest.mark.parametrize(("says", "kind"), [(22, None), (18, Kind.REFUSES_WHAT_IT_HOLDS)])
def test_a_decoder_is_taken_at_its_word_of_what_it_holds(says: int, kind: Kind | None) -> None:
    class Stating(CacheDecoder):
        def first_held(self) -> list[int]:
            return [says] * self.model.n_layers

        def rewind(self, length: int) -> None:
            raise ValueError(f"cannot rewind to {length}")

    finding = _rewound(decoder(Stating))
    assert finding.kind is kind, finding.message


class KeepsAll(Trimmed):
    """Forgets nothing, so that it can always go back."""

    def needed(self, columns: Tensor) -> Tensor:
        return columns >= 0


def test_how_far_rewinds_went_is_an_integer() -> None:
    finding = _rewound(cache(KeepsAll))
    assert (finding.status, finding.bytes) == (Status.PASS, {"rewound": 3})


class Paged(Trimmed):
    """Frees keys into a pool that it does not clear, and refuses to go back to them."""

    def reset(self) -> None:
        super().reset()
        self.pool: list[Tensor] = []

    def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
        super().store(keys, values, columns, keep)
        self.pool += [keys[:, :, ~keep].clone(), values[:, :, ~keep].clone()]


def test_memory_that_was_freed_is_not_held() -> None:
    assert _rewound(cache(Paged)).status is Status.PASS


def test_what_is_no_position_is_named() -> None:
    finding = _rewound(cache(type("Says", (Lossy,), {"says": "all"})))
    assert finding.kind is Kind.CONTRACT_BROKEN
    assert "first_held() must return an int, got str" in finding.message


# --- What is returned and held.


@pytest.mark.parametrize("said", [None, 7.5, True, torch.tensor(7)])
def test_bytes_that_are_no_count_are_named(said: Any) -> None:
    liar = cache(type("Liar", (Trimmed,), {"nbytes": lambda self: said}))  # noqa: ARG005 - theirs
    finding = run_check(liar, "cache_bytes", parse("mistral/bytes-chunked-50w/float32/b1"))
    assert finding.kind is Kind.CONTRACT_BROKEN
    assert "nbytes() must return an int, got" in finding.message


def test_a_cache_without_reset_is_no_cache() -> None:
    class Half:
        """Updates, and nothing else."""

        def update(self, k: Tensor, v: Tensor) -> Any:
            return k, v, torch.ones(k.shape[2], k.shape[2], dtype=torch.bool).tril()

    class Subject(TrimmedSubject):
        def new_cache(self, layer: Layer, shape: CacheShape) -> Any:
            del layer, shape
            return Half()

    finding = run_check(Subject, "values", parse("mistral/prefill-w/float32/b1"))
    assert "got Half without reset, nbytes" in finding.message


class MaskForAll(Trimmed):
    """One mask for every row of the batch, with the axes of one per row."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        return keys, values, mask[None, None]


def test_a_mask_that_broadcasts_to_the_batch_is_taken() -> None:
    finding = run_check(cache(MaskForAll), "visibility", parse("mistral/turns/float32/b3"))
    assert finding.status is Status.PASS, finding.message


def test_memory_that_torch_does_not_hold_is_said_to_be_unseen() -> None:
    class Elsewhere(Trimmed):
        """Keeps NumPy arrays."""

        def store(self, keys: Tensor, values: Tensor, columns: Tensor, keep: Tensor) -> None:
            super().store(keys, values, columns, keep)
            self.arrays = self.keys.numpy().copy(), self.values.numpy().copy()
            self.at = self.kept.tolist()
            del self.keys, self.values, self.kept

        def reset(self) -> None:
            super().reset()
            self.arrays, self.at = (self.keys.numpy(), self.values.numpy()), []
            del self.keys, self.values, self.kept

        def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            self.keys, self.values = (torch.from_numpy(a.copy()) for a in self.arrays)
            self.kept = torch.tensor(self.at, dtype=torch.int64)
            return super().update(k, v)

        def nbytes(self) -> int:
            return sum(int(a.nbytes) for a in self.arrays)

    case = parse("mistral/bytes-chunked-50w/float32/b1")
    finding = run_check(cache(Elsewhere), "cache_bytes", case)
    assert finding.kind is Kind.BYTES_CLAIMED_DIFFER
    assert "its storages hold 0 (memory outside torch is not seen)" in finding.message
