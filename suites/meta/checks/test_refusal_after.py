"""The refusal check: what comes beyond the limits and after a refusal, each way to be wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted import DECODER, cache, defect
from refusal_cases import CASE, found
from torch import Tensor

from harness.defects.base import Trimmed
from harness.defects.refusals import _fit
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Kind, Status


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
