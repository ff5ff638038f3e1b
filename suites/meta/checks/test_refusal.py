"""The refusal check: each way to take bad input is caught, and honest subjects pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted import ATTENTION, CACHE, DECODER, cache, decoder, defect
from torch import Tensor

from harness.cases.case import parse
from harness.checks.refusal import refusal
from harness.checks.refusal.cache import bad_updates
from harness.contract import Unsupported
from harness.defects.base import DenseAttention, Trimmed
from harness.defects.refusals import _fit
from harness.law import Layer
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Finding, Kind, Status

CASE = parse("mistral/chunk-4/float32/b1")  # 51 positions, window 8, two key heads
BATCH = parse("mistral/chunk-4/float32/b3")
PREFILL = parse("mistral/prefill-3w+5/float32/b1")


def found(subject: type[Any], case: Any = CASE) -> Finding:
    return refusal(subject(), case)


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


# --- Beyond the announced limits.


class LosesAKey(Trimmed):
    """Loses the oldest key of some queries."""

    def loses(self, q: int, t: int) -> bool:
        raise NotImplementedError

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries, columns)
        for row, q in enumerate(queries.tolist()):
            if self.loses(q, len(queries)):
                mask[row, int(mask[row].nonzero()[0])] = False
        return mask


class PastContext(LosesAKey):
    """Wrong from max_context on."""

    def loses(self, q: int, t: int) -> bool:
        del t
        return q >= self.shape.max_context


class LongChunks(LosesAKey):
    """Wrong in the last row of a chunk longer than announced."""

    def loses(self, q: int, t: int) -> bool:
        return t > self.shape.max_chunk and q == self.length - 1


class WithinLimits(LosesAKey):
    """Wrong at position 9 in chunks of the announced length."""

    def loses(self, q: int, t: int) -> bool:
        return q == 9 and t <= self.shape.max_chunk


class Strict(Trimmed):
    """Refuses what is longer than announced."""

    def check(self, k: Tensor, v: Tensor) -> None:
        super().check(k, v)
        if k.shape[2] > self.shape.max_chunk or self.length + k.shape[2] > self.shape.max_context:
            raise ValueError(f"{k.shape[2]} more positions are too many")


class StrictAndWordless(Strict):
    """Refuses what is longer than announced, with an error that has no message."""

    def check(self, k: Tensor, v: Tensor) -> None:
        Trimmed.check(self, k, v)
        try:
            super().check(k, v)
        except ValueError:
            raise ValueError from None


@pytest.mark.parametrize(
    ("planted", "kind", "first_bad"),
    [
        (PastContext, Kind.ACCEPTED_AND_WRONG, CASE.max_context),
        (LongChunks, Kind.ACCEPTED_AND_WRONG, CASE.max_chunk + 3 - 1),
        (WithinLimits, Kind.WRONG_VALUES, 9),  # before any misuse: not a question of refusal
        (StrictAndWordless, Kind.ERROR_WITHOUT_MESSAGE, None),
    ],
)
@pytest.mark.parametrize("wrap", [cache, "decoder"])
def test_what_is_taken_beyond_the_limits_must_be_right(
    planted: type[Trimmed], kind: Kind, first_bad: int | None, wrap: Any
) -> None:
    subject = of_caches(planted) if wrap == "decoder" else wrap(planted)
    finding = found(subject)
    assert (finding.status, finding.kind, finding.first_bad) == (Status.FAIL, kind, first_bad)


@pytest.mark.parametrize("wrap", [cache, "decoder"])
def test_refusing_it_is_right_as_well(wrap: Any) -> None:
    subject = of_caches(Strict) if wrap == "decoder" else wrap(Strict)
    assert found(subject).status is Status.PASS


def of_caches(planted: type[Trimmed]) -> type[Any]:
    """A decoder subject over planted caches."""

    class Subject(DECODER):
        def open(self, case: Any) -> Any:
            return CacheDecoder(cache(planted)(), case)

    return Subject


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


# --- Each way to be wrong, for each body.


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        ("OtherDtypeByBits", Kind.ACCEPTED_AND_WRONG),
        ("OtherDtypeStoredWrong", Kind.STATE_CHANGED),
        ("HalfKeysNotPromoted", Kind.ACCEPTED_AND_WRONG),
        ("HalfKeysSpoilTheScale", Kind.STATE_CHANGED),
        ("RefusalSpoilsTheScale", Kind.STATE_CHANGED),
        ("TokensWrapAround", Kind.BAD_INPUT_ACCEPTED),
        ("RankOneReversed", Kind.ACCEPTED_AND_WRONG),
        ("RankOneCountedTwice", Kind.STATE_CHANGED),
        ("RefusedFeedCounted", Kind.STATE_CHANGED),
    ],
)
def test_each_way_to_take_bad_input_wrongly_has_its_kind(planted: str, kind: Kind) -> None:
    finding = found(defect(planted))
    assert (finding.status, finding.kind) == (Status.FAIL, kind), finding.message


def test_the_call_that_raises_after_a_refusal_is_told_with_what_was_refused() -> None:
    class HalfStored(Trimmed):
        """Stores the keys, then finds that the values do not fit."""

        def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            try:
                return super().update(k, v)
            except ValueError:
                self.keys = torch.cat((self.keys, self.keys[:, :, :1]), 2)
                raise

    finding = found(cache(HalfStored))
    assert finding.kind is Kind.STATE_CHANGED
    assert "rank 3: refused, but the good call after it raises" in finding.message


class SpoiltByTooLong(Trimmed):
    """Counts the positions of a chunk beyond max_chunk that it refuses."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if k.shape[2] > self.shape.max_chunk:
            self.length += k.shape[2]
            raise ValueError(f"{k.shape[2]} tokens are more than {self.shape.max_chunk}")
        return super().update(k, v)


class NoResetAfterRefusal(Trimmed):
    """Does not reset any more once it has refused something past max_context."""

    refused = False

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.length + k.shape[2] > self.shape.max_context:
            self.refused = True
            raise ValueError("past max_context")
        return super().update(k, v)

    def reset(self) -> None:
        if not self.refused:
            super().reset()


class DropsTheLastToken(Trimmed):
    """Answers a single token past max_context without having stored it."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if k.shape[2] == 1 and self.length >= self.shape.max_context:
            k, v = k * 0, v * 0
        return super().update(k, v)


class OneTokenCut(Trimmed):
    """Cuts and pads a single token to its own shape."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if k.shape[-2] == 1:
            s = self.shape
            like = torch.zeros(s.batch, s.n_kv_heads, 1, s.head_dim, dtype=s.dtype)
            k, v = _fit(k, like), _fit(v, like)
        return super().update(k, v)


@pytest.mark.parametrize(
    ("planted", "kind"),
    [
        (SpoiltByTooLong, Kind.STATE_CHANGED),
        (NoResetAfterRefusal, Kind.STATE_CHANGED),
        (DropsTheLastToken, Kind.ACCEPTED_AND_WRONG),
        (OneTokenCut, Kind.BAD_INPUT_ACCEPTED),
    ],
)
def test_what_comes_after_and_at_the_limits_is_looked_at(planted: Any, kind: Kind) -> None:
    finding = found(cache(planted))
    assert (finding.status, finding.kind) == (Status.FAIL, kind), finding.message
