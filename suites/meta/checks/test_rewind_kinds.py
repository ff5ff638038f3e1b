"""Rewinds of every kind: right or refused where they are good, harmless where they are bad."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted import CACHE, DECODER, cache, decoder, defect
from torch import Tensor

from harness.cases.case import Case, parse
from harness.checks.refusal import refusal
from harness.checks.refusal.cache import CacheBody
from harness.checks.refusal.lengths import bad_lengths
from harness.checks.rewind import CARRIER, rewind
from harness.checks.rewind_kinds import every_kind
from harness.contract import Unsupported
from harness.defects.base import Trimmed
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Finding, Kind, Status
from harness.run import plan

TWICE = parse(f"mistral/{CARRIER}/float32/b1")
FULL = parse(f"llama3/{CARRIER}/float32/b1")
PLAIN = parse("mistral/chunk-4/float32/b1")


def kinds(subject: type[Any], case: Case = TWICE) -> Finding:
    """What the rewinds of every kind find, alone."""
    finding = Finding("rewind")
    every_kind(finding, subject(), case)
    return finding


# --- Good lengths.


@pytest.mark.parametrize("model", ["mistral", "mistral-w1", "llama3", "llama3-sink4", "llama4"])
@pytest.mark.parametrize("subject", [CACHE, DECODER])
def test_correct_rewinds_of_every_kind_pass(subject: type[Any], model: str) -> None:
    finding = kinds(subject, parse(f"{model}/{CARRIER}/float32/b1"))
    assert (finding.status, finding.message) == (Status.PASS, "")


@pytest.mark.parametrize(
    ("planted", "case", "text", "first"),
    [
        ("RewindToTheEnd", TWICE, "float32, after rewind from 4 to 4, position 4", 4),
        ("RewindToNothing", TWICE, "rewind from 9 to 0, position 0", 0),
        ("RewindInHalf", TWICE, "bfloat16, after rewind from 4 to 4, position 4", 4),
        ("RewindPast128", FULL, "float32, after rewind from 132 to 132, position 132", 132),
        ("ResetAfterRewind", TWICE, "rewind from 5 to 4, reset, position 0", 0),
        ("DecoderRewindsToTheEnd", TWICE, "after rewind from 4 to 4, position 4", 4),
    ],
)
def test_each_kind_is_caught_where_it_goes_wrong(
    planted: str, case: Case, text: str, first: int
) -> None:
    finding = rewind(defect(planted)(), case)
    assert (finding.status, finding.kind) == (Status.FAIL, Kind.WRONG_VALUES)
    assert text in finding.message
    assert finding.first_bad == first
    assert "refused, as it may" not in finding.message  # what the schedule found is not the matter


def test_the_precision_that_is_right_is_not_blamed() -> None:
    assert "float32" not in kinds(defect("RewindInHalf")).message


def test_they_are_made_once_a_model_and_record_nothing() -> None:
    """Beside one schedule, which the plan has for every model that rewinds."""
    cases = [case for check, case in plan.items(CACHE) if check == "rewind"]
    carriers = [case.model.name for case in cases if case.schedule.name == CARRIER]
    assert sorted(carriers) == sorted({case.model.name for case in cases})
    other = parse("mistral/rewind-1-of-long/float32/b1")
    assert rewind(defect("RewindToTheEnd")(), other).status is Status.PASS
    assert rewind(CACHE(), FULL).bytes == {"rewound": 4}


class WrongInHalf(Trimmed):
    """Answers wrongly in half precision, whether or not it was rewound."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        return keys, values.flip(2) if k.dtype is not torch.float32 else values, mask


class NanInHalf(Trimmed):
    """Holds NaN after a rewind in half precision."""

    def rewind(self, length: int) -> None:
        super().rewind(length)
        if self.shape.dtype is not torch.float32:
            self.values = self.values * torch.nan


class NoHalf(Trimmed):
    """Claims float32 alone."""

    def reset(self) -> None:
        if self.shape.dtype is not torch.float32:
            raise Unsupported("float32 only")
        super().reset()


class RefusesAll(Trimmed):
    """Refuses every rewind; what is wrong after one of them is the matter of another comparison."""

    def rewind(self, length: int) -> None:
        raise ValueError(f"cannot rewind to {length}")


@pytest.mark.parametrize("planted", [WrongInHalf, NoHalf, RefusesAll])
def test_what_is_no_rewinds_doing_is_not_blamed_on_it(planted: type[Trimmed]) -> None:
    assert kinds(cache(planted)).status is Status.PASS


def test_a_precision_that_the_subject_leaves_out_is_left_out() -> None:
    def covers(check: str, case: Case) -> bool:
        return check == "rewind" and case.dtype == "float32"

    in_half = cache(defect("RewindInHalf").cache, covers=staticmethod(covers))
    assert kinds(in_half).status is Status.PASS


def test_not_a_number_is_called_that() -> None:
    assert kinds(cache(NanInHalf)).kind is Kind.NOT_A_NUMBER


# --- Bad lengths.


def lengths(subject: type[Any]) -> Finding:
    """What the bad lengths find, alone."""
    finding = Finding("refusal")
    bad_lengths(finding, CacheBody(subject(), PLAIN, 0, PLAIN.model.layers[0]))
    return finding


@pytest.mark.parametrize(
    ("planted", "kind", "text"),
    [
        ("RefusedAheadForgets", Kind.STATE_CHANGED, "rewind from 24 to 25: refused, but"),
    ],
)
def test_a_refused_length_changes_nothing(planted: str, kind: Kind, text: str) -> None:
    finding = refusal(defect(planted)(), PLAIN)
    assert (finding.status, finding.kind) == (Status.FAIL, kind)
    assert text in finding.message


class TakesAnything(Trimmed):
    """Slices by whatever length it is given, as code without validation does."""

    def rewind(self, length: int) -> None:
        self.keys, self.values = self.keys[:, :, :length], self.values[:, :, :length]
        self.kept, self.length = self.kept[:length], length


class Wordless(Trimmed):
    """Refuses with an error that has no message."""

    def rewind(self, length: int) -> None:
        del length
        raise ValueError


class TooWide(Trimmed):
    """Answers every call wrongly."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        return keys, values * 2, mask


class TooWideAndAhead(TooWide):
    """The same, and moves its count where it is told to."""

    def rewind(self, length: int) -> None:
        self.length = length


def test_what_is_made_of_an_accepted_length_is_not_judged() -> None:
    assert lengths(cache(TakesAnything)).status is Status.PASS


def test_a_length_refused_without_a_word_is_caught() -> None:
    assert lengths(cache(Wordless)).kind is Kind.ERROR_WITHOUT_MESSAGE


def test_what_was_wrong_before_is_not_the_rewinds_doing() -> None:
    assert lengths(cache(TooWideAndAhead)).status is Status.PASS


class ForgetsNothing(CacheDecoder):
    """A decoder without a rewind."""

    rewind: Any = None


def test_what_has_no_rewind_is_asked_for_none() -> None:
    assert lengths(cache(type("Plain", (Trimmed,), {"rewind": None}))).status is Status.PASS
    assert refusal(decoder(ForgetsNothing)(), PLAIN).status is Status.PASS
