"""The checks of state: reset, rewind, purity.  What they must catch, and what they must not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted import ATTENTION, CACHE, DECODER, cache, decoder, defect
from torch import Tensor

from harness.cases.case import parse
from harness.checks.purity import purity
from harness.checks.reset import reset
from harness.checks.rewind import rewind
from harness.contract import Unsupported
from harness.defects.base import DenseAttention, Trimmed
from harness.law import Layer
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Kind, Status

RESET = parse("mistral/reset-then-chunks/float32/b1")
RESETS = [
    RESET,
    parse("llama3-sink2/reset-twice/float32/b3"),
    parse("gemma3/reset-then-decode/float32/b1"),
]
REWIND = parse("mistral/rewind-3-of-long/float32/b1")
REWINDS = [
    REWIND,
    parse("mistral/rewind-far/float32/b1"),
    parse("llama3/rewind-twice/float32/b1"),
]
PLAIN = parse("mistral/chunk-4/float32/b3")
PLAINS = [PLAIN, parse("llama3-sink2/chunk-w+1/float32/b1"), parse("gemma3/chunk-w/float32/b1")]

Subject = type[Any]


def ids(value: object) -> str:
    return str(getattr(value, "id", getattr(value, "__name__", value)))


# --- Reset.


@pytest.mark.parametrize("case", RESETS, ids=ids)
@pytest.mark.parametrize("subject", [CACHE, DECODER], ids=ids)
def test_a_correct_reset_gives_the_same_bits(subject: Subject, case: Any) -> None:
    finding = reset(subject(), case)
    assert (finding.status, finding.kind, finding.figure) == (Status.PASS, None, 0)
    assert finding.message == ""


class SumsBackwards(Trimmed):
    """Continues after a reset with its keys in another order: right, but not bit for bit."""

    resets = 0

    def reset(self) -> None:
        super().reset()
        self.resets += 1

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        if self.resets > 1:  # the constructor's is the first
            return keys.flip(2), values.flip(2), mask.flip(-1)
        return keys, values, mask


def test_other_bits_within_the_bound_are_no_failure() -> None:
    finding = reset(cache(SumsBackwards)(), RESET)
    assert finding.status is Status.PASS
    assert finding.figure is not None
    assert finding.bound is not None
    assert 0 < finding.figure <= finding.bound
    assert "within the bound" in finding.message


class NanAfterReset(SumsBackwards):
    """Divides by what a reset has set to zero."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = Trimmed.update(self, k, v)
        return keys, values * torch.nan if self.resets > 1 else values, mask


@pytest.mark.parametrize(
    ("subject", "case", "kind"),
    [
        (defect("StaleAfterReset"), RESET, Kind.RESET_DIFFERS),
        (defect("SecondReset"), parse("mistral/reset-twice/float32/b1"), Kind.RESET_DIFFERS),
        (cache(NanAfterReset), RESET, Kind.NOT_A_NUMBER),
    ],
    ids=ids,
)
def test_a_wrong_reset_is_caught_from_the_first_row(
    subject: Subject, case: Any, kind: Kind
) -> None:
    finding = reset(subject(), case)
    assert (finding.status, finding.kind, finding.first_bad) == (Status.FAIL, kind, 0)


def test_a_reset_is_asked_of_what_has_one_and_where_the_schedule_does() -> None:
    with pytest.raises(Unsupported, match="stateless"):
        reset(ATTENTION(), RESET)
    with pytest.raises(Unsupported, match="does not reset"):
        reset(CACHE(), PLAIN)


# --- Rewind.


@pytest.mark.parametrize("case", REWINDS, ids=ids)
@pytest.mark.parametrize("subject", [CACHE, DECODER], ids=ids)
def test_a_correct_rewind_is_right_or_refused(subject: Subject, case: Any) -> None:
    finding = rewind(subject(), case)
    assert (finding.status, finding.kind) == (Status.PASS, None), finding.message


class NeverRewinds(Trimmed):
    """Refuses every rewind, and stays as it was."""

    def rewind(self, length: int) -> None:
        raise ValueError(f"cannot rewind to {length}")


def test_a_clean_refusal_is_no_failure() -> None:
    finding = rewind(cache(NeverRewinds)(), REWIND)
    assert finding.status is Status.PASS
    assert finding.message.startswith("refused, as it may: ValueError: cannot rewind to")


@pytest.mark.parametrize(
    ("subject", "case", "kind"),
    [
        (defect("RewindForgetsNothing"), REWIND, Kind.WRONG_VALUES),
        (defect("RewindPastEviction"), REWIND, Kind.WRONG_VALUES),
        (defect("RewindThenChunk"), parse("llama3/rewind-far/float32/b1"), Kind.WRONG_VALUES),
        (defect("RefusedRewindForgets"), REWIND, Kind.STATE_CHANGED),
    ],
    ids=ids,
)
def test_a_wrong_rewind_is_caught(subject: Subject, case: Any, kind: Kind) -> None:
    finding = rewind(subject(), case)
    assert (finding.status, finding.kind) == (Status.FAIL, kind)


class WithoutRewind:
    """A cache that has none of the optional members."""

    def __init__(self, layer: Layer, shape: Any) -> None:
        inner = Trimmed(layer, shape)
        self.update, self.reset, self.nbytes = inner.update, inner.reset, inner.nbytes


def test_a_rewind_is_asked_of_what_has_one_and_where_the_schedule_does() -> None:
    with pytest.raises(Unsupported, match="has no rewind"):
        rewind(cache(WithoutRewind)(), REWIND)  # type: ignore[arg-type]
    with pytest.raises(Unsupported, match="stateless"):
        rewind(ATTENTION(), REWIND)
    with pytest.raises(Unsupported, match="does not rewind"):
        rewind(CACHE(), PLAIN)


# --- Purity.


@pytest.mark.parametrize("case", PLAINS, ids=ids)
@pytest.mark.parametrize("subject", [CACHE, DECODER, ATTENTION], ids=ids)
def test_pure_subjects_pass(subject: Subject, case: Any) -> None:
    finding = purity(subject(), case)
    assert (finding.status, finding.kind) == (Status.PASS, None), finding.message


class EatsTokens(CacheDecoder):
    """Overwrites the tokens that it was fed."""

    def feed(self, tokens: Tensor) -> Tensor:
        logits = super().feed(tokens)
        tokens.zero_()
        return logits


class NeverTheSame(Trimmed):
    """Each update of a process is a little warmer than the last."""

    updates = 0

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        NeverTheSame.updates += 1
        return keys, values * (1 + 2.0**-20 * self.updates), mask


class TokensMix(CacheDecoder):
    """Adds the last row's logits to those of all."""

    def feed(self, tokens: Tensor) -> Tensor:
        logits = super().feed(tokens)
        return logits + logits[-1:]


class RowsOfOutputMix(DenseAttention):
    """The second row of a batch attends with the first one's queries, in part."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer)
        return out + 0.5 * out[:1] if len(out) > 1 else out


@pytest.mark.parametrize(
    ("subject", "case", "kind"),
    [
        (decoder(EatsTokens), PLAIN, Kind.INPUT_CHANGED),
        (defect("InputModified"), PLAIN, Kind.INPUT_CHANGED),
        (defect("QueriesScaledInPlace"), PLAIN, Kind.INPUT_CHANGED),
        (defect("KeysScaledInPlace"), PLAIN, Kind.INPUT_CHANGED),
        (defect("KeepsTheCallersTensor"), parse("llama3/chunk-4/float32/b1"), Kind.INPUT_KEPT),
        (cache(NeverTheSame), PLAIN, Kind.NOT_REPEATABLE),
        (defect("SharedPool"), PLAIN, Kind.INSTANCES_MIX),
        (defect("BatchRowsMixed"), PLAIN, Kind.ROWS_MIX),
        (decoder(TokensMix), PLAIN, Kind.ROWS_MIX),
        (RowsOfOutputMix, PLAIN, Kind.ROWS_MIX),
    ],
    ids=ids,
)
def test_what_is_not_pure_is_caught_as_what_it_is(subject: Subject, case: Any, kind: Kind) -> None:
    finding = purity(subject(), case)
    assert (finding.status, finding.kind) == (Status.FAIL, kind), finding.message


def test_a_schedule_that_resets_belongs_to_another_check() -> None:
    with pytest.raises(Unsupported, match="the check of that name"):
        purity(CACHE(), RESET)
