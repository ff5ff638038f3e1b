"""The refusal check of each body: bad input is caught, and honest subjects pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted import ATTENTION, CACHE, DECODER, cache, decoder, defect
from refusal_cases import BATCH, CASE, PREFILL, found
from torch import Tensor

from harness.checks.refusal.cache import bad_updates
from harness.contract import Unsupported
from harness.defects.base import DenseAttention, Trimmed
from harness.law import Layer
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Kind, Status


@pytest.mark.parametrize("case", [CASE, BATCH, PREFILL], ids=lambda c: c.id)
@pytest.mark.parametrize("subject", [CACHE, DECODER, ATTENTION])
def test_correct_subjects_pass_and_say_so(subject: type[Any], case: Any) -> None:
    finding = found(subject, case)
    assert (finding.status, finding.kind) == (Status.PASS, None), finding.message
    assert finding.message.endswith(": every bad input was refused")


def test_a_scheme_that_is_not_claimed_is_not_checked() -> None:
    narrow = type("Narrow", (CACHE,), {"schemes": frozenset({"sink"})})
    with pytest.raises(Unsupported, match="not uniform"):
        found(narrow)


# --- Caches.


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_every_bad_update_is_another_one_and_bad(batch: int, dtype: torch.dtype) -> None:
    k = torch.zeros(batch, 2, 2, 8, dtype=dtype)
    bad = list(bad_updates(k, k))
    assert len({b.what for b in bad}) == len(bad) == (13 if batch > 1 else 12)
    form = (k.shape, k.dtype)
    assert all(any((x.shape, x.dtype) != form for x in b.handed) for b in bad)


def test_a_cache_that_takes_anything_is_caught_at_each_bad_update() -> None:
    finding = found(defect("AcceptsAnything"))
    assert (finding.status, finding.kind) == (Status.FAIL, Kind.BAD_INPUT_ACCEPTED)
    assert (
        "Layer(window=8), another batch: accepted, though it stands for nothing" in finding.message
    )
    assert "float16" not in finding.message


def test_a_cache_that_checks_the_keys_alone_is_caught_at_the_values() -> None:
    finding = found(defect("ChecksKeysAlone"), BATCH)
    assert finding.kind is Kind.BAD_INPUT_ACCEPTED
    assert "only values of another batch: accepted, though it stands" in finding.message
    assert "another number of heads: accepted" not in finding.message


class Wordless(Trimmed):
    """Refuses with an error that has no message."""

    def check(self, k: Tensor, v: Tensor) -> None:
        try:
            super().check(k, v)
        except ValueError:
            raise ValueError from None


def test_an_error_that_says_nothing_is_caught() -> None:
    finding = found(cache(Wordless))
    assert (finding.status, finding.kind) == (Status.FAIL, Kind.ERROR_WITHOUT_MESSAGE)
    assert "rank 3: ValueError without a message" in finding.message


def test_a_refusal_that_leaves_a_mess_is_caught() -> None:
    finding = found(defect("RefusalLeavesMess"))
    assert (finding.status, finding.kind) == (Status.FAIL, Kind.STATE_CHANGED)
    assert "rank 3: refused, but it changed later answers" in finding.message


# --- Decoders.


class AnyToken(CacheDecoder):
    """Takes token ids modulo the vocabulary."""

    def feed(self, tokens: Tensor) -> Tensor:
        return super().feed(tokens % self.case.vocab)


class CountsRefused(CacheDecoder):
    """Counts the positions of a feed that it then refuses."""

    def feed(self, tokens: Tensor) -> Tensor:
        try:
            return super().feed(tokens)
        except ValueError:
            self.length += 1
            raise


def test_a_decoder_that_takes_any_token_id_is_caught() -> None:
    finding = found(decoder(AnyToken))
    assert (finding.status, finding.kind) == (Status.FAIL, Kind.BAD_INPUT_ACCEPTED)
    assert "a negative token id: accepted" in finding.message
    assert "a token id past the vocabulary: accepted" in finding.message
    assert "another batch" not in finding.message


def test_a_decoder_that_counts_what_it_refused_is_caught() -> None:
    finding = found(decoder(CountsRefused))
    assert (finding.status, finding.kind) == (Status.FAIL, Kind.STATE_CHANGED)


# --- Attention operations.


class NoChecks(DenseAttention):
    """Does not check its arguments."""

    def check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        del q, k, v


class QueriesCut(DenseAttention):
    """Answers fewer queries than it was asked."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        return super().attend(q[:, :, -k.shape[2] :], k, v, layer)


class FirstKeyForAll(DenseAttention):
    """Lets queries before position 0 see the first key."""

    def check(self, q: Tensor, k: Tensor, v: Tensor) -> None:
        del q, k, v

    def mask(self, layer: Layer, queries: Tensor, columns: Tensor) -> Tensor:
        return super().mask(layer, queries, columns) | ((queries < 0)[:, None] & (columns == 0))


def test_an_operation_may_answer_what_has_an_answer() -> None:
    finding = found(NoChecks)
    assert finding.status is Status.PASS, finding.message
    assert "or answered rightly: more queries than keys" in finding.message


def test_an_operation_that_leaves_queries_out_is_caught() -> None:
    finding = found(QueriesCut)
    assert finding.kind is Kind.ACCEPTED_AND_WRONG
    assert "to 102 queries" in finding.message


def test_an_operation_that_answers_queries_without_a_key_is_caught() -> None:
    finding = found(FirstKeyForAll)
    assert finding.kind is Kind.ACCEPTED_AND_WRONG
    assert "answers queries that see no key with other than NaN or zeros" in finding.message
