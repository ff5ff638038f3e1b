"""Recovering who attends to whom: exact on correct subjects, and told apart where it is wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from planted import ATTENTION, CACHE, DECODER, cache, decoder, defect
from torch import Tensor

from harness.cases.case import Case, parse
from harness.checks.common import op_shape
from harness.checks.drive import open_decoder
from harness.checks.recover import recover_influence, recover_weights, uneven_row
from harness.checks.visibility import visibility
from harness.contract import Unsupported
from harness.defects.base import Trimmed
from harness.law import Layer, influence
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Finding, Kind, Status

CASE = parse("mistral/chunk-4/float32/b1")
LONG = parse("mistral-w64/chunk-w+1/float32/b1")  # more positions than one run has columns
LAWS = [Layer(), Layer(window=1), Layer(window=8), Layer(window=8, sink=2), Layer(chunk=6)]
STACKS = ["mistral", "llama3-sink2", "gemma3", "gemma4-e2b", "llama4", "llama3"]


# --- Single layers.


@pytest.mark.parametrize("layer", LAWS, ids=str)
@pytest.mark.parametrize("subject", [CACHE, ATTENTION])
def test_weights_of_a_correct_layer_are_shared_by_the_visible_keys(
    subject: type[Any], layer: Layer
) -> None:
    shape, n = op_shape(CASE, 0), CASE.schedule.length
    weights = recover_weights(subject(), layer, shape, 4, CASE)
    mask = layer.mask(0, n, n)
    share = mask / mask.sum(-1, keepdim=True)
    assert weights.shape == (1, 4, n, n)
    assert (weights != 0).equal(mask.expand_as(weights))
    assert (weights - share).abs().max() <= torch.finfo(torch.float32).eps
    assert uneven_row(weights) is None


def test_weights_of_more_positions_than_columns_are_joined() -> None:
    n = LONG.schedule.length
    assert n > 64
    weights = recover_weights(CACHE(), Layer(window=64), op_shape(LONG, 0), 4, LONG)
    assert (weights[0, 0] != 0).equal(Layer(window=64).mask(0, n, n))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_first_uneven_row_of_any_head_is_named(dtype: torch.dtype) -> None:
    mask = Layer(window=3).mask(0, 6, 6)
    even = (mask / mask.sum(-1, keepdim=True)).to(dtype).expand(2, 4, 6, 6)
    assert uneven_row(even) is None
    for value in (0.4, torch.nan, torch.inf):
        weights = even.clone()
        weights[1, 2, 4, 4] = value
        weights[0, 3, 5, 5] = value
        assert uneven_row(weights) == 4


# --- Whole decoders.


def recovered(subject: type[Any], case: Case) -> Any:
    return recover_influence(lambda other: open_decoder(subject(), other), case)


def expected(case: Case) -> Tensor:
    n = case.schedule.length
    masks = [layer.mask(0, n, n) for layer in case.model.layers]
    return influence(masks, case.model.kv_sources)


@pytest.mark.parametrize("model", STACKS)
def test_the_influence_of_a_correct_decoder_is_the_law_s(model: str) -> None:
    case = parse(f"{model}/prefill-3w+5/float32/b1")
    found = recovered(DECODER, case)
    assert found.reached.equal(expected(case))
    assert (found.stated, found.nan.any().item()) == (None, False)


class OneRow(DECODER):
    """Takes no batch."""

    def open(self, case: Case) -> Any:
        if case.batch > 1:
            raise Unsupported("one row at a time")
        return super().open(case)


def test_a_decoder_without_batches_is_asked_row_by_row() -> None:
    case = parse("mistral/prefill-w+1/float32/b1")
    assert recovered(OneRow, case).reached.equal(expected(case))


class Stated(CacheDecoder):
    """States a window of 3 for itself."""

    def stated_masks(self, n: int) -> list[Tensor]:
        return [Layer(window=3).mask(0, n, n)] * self.model.n_layers


class NanFromFive(CacheDecoder):
    """Overflows from position 5 on."""

    def feed(self, tokens: Tensor) -> Tensor:
        start, logits = self.length, super().feed(tokens)
        late = torch.arange(start, self.length) >= 5
        return torch.where(late[None, :, None], torch.nan, logits)


def test_what_a_decoder_states_comes_along() -> None:
    case = parse("mistral/prefill-w+1/float32/b1")
    stated = recovered(decoder(Stated), case).stated
    assert len(stated) == case.model.n_layers
    assert stated[0].equal(Layer(window=3).mask(0, 9, 9))


def test_of_rows_with_nan_nothing_is_known_and_of_the_others_all() -> None:
    case = parse("mistral/prefill-w+1/float32/b1")
    found = recovered(decoder(NanFromFive), case)
    assert found.nan.tolist() == [q >= 5 for q in range(9)]
    assert found.reached[:5].equal(expected(case)[:5])


# --- What the check makes of it.

#: Positions further back that each layer of window 8 reaches.
STEP = 7


class ShiftedWindow(Trimmed):
    """Sees window keys, but not its own: one lost, and one too many once the window is full."""

    def needed(self, columns: Tensor) -> Tensor:
        return torch.ones_like(columns, dtype=torch.bool)

    def mask(self, queries: Tensor, columns: Tensor) -> Tensor:
        mask = super().mask(queries - 1, columns)
        return mask if int(queries[0]) else mask | super().mask(queries, columns)


class NanInOneRow(Trimmed):
    """The last row of every third chunk divides by zero."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        return keys, values * torch.nan if 12 <= self.length < 16 else values, mask


@pytest.mark.parametrize(
    ("subject", "kind", "first_bad"),
    [
        (defect("WindowPlusOne"), Kind.SEES_TOO_MANY, 8),
        (defect("WindowMinusOne"), Kind.LOST_KEYS, 7),
        (defect("FutureInChunk"), Kind.SEES_THE_FUTURE, 0),
        (cache(ShiftedWindow), Kind.WRONG_KEYS, 4),
        (defect("KeyReturnedTwice"), Kind.NOT_UNIFORM, 3),
        (cache(NanInOneRow), Kind.NOT_A_NUMBER, 8),
        (defect("AllLayersFull"), Kind.SEES_TOO_MANY, 1 + STEP * CASE.model.n_layers),
        (decoder(NanFromFive), Kind.NOT_A_NUMBER, 5),
    ],
)
def test_the_kind_tells_what_is_wrong_with_a_visible_set(
    subject: type[Any], kind: Kind, first_bad: int
) -> None:
    finding = visibility(subject(), CASE)
    assert (finding.status, finding.kind) == (Status.FAIL, kind), finding.message
    assert finding.first_bad == first_bad


@pytest.mark.parametrize("subject", [CACHE, DECODER, ATTENTION])
def test_correct_subjects_pass(subject: type[Any]) -> None:
    finding = visibility(subject(), CASE)
    assert (finding.status, finding.kind, finding.message) == (Status.PASS, None, "")


def test_a_decoder_is_held_to_what_it_states() -> None:
    assert visibility(decoder(Stated)(), CASE).kind is Kind.SEES_TOO_MANY


def test_the_kind_is_that_of_all_rows_and_the_text_that_of_the_first() -> None:
    law, got = Layer(window=4).mask(0, 20, 20), Layer(window=5).mask(0, 20, 20)
    got[19, 19] = False  # the one lost key, in a later row than the finding keeps
    finding = Finding("visibility")
    finding.compare_sets(law, got, "layer 3")
    assert finding.kind is Kind.WRONG_KEYS
    assert finding.message == "layer 3: query 4 sees [0] too many; query 5 sees [1] too many"
    assert [row[0] for row in finding.rows] == [4, 5, 6, 7, 8, 9]
    assert finding.first_bad == 4


def test_a_second_layer_keeps_the_first_kind_and_says_its_own() -> None:
    law = Layer(window=4).mask(0, 20, 20)
    finding = Finding("visibility")
    finding.compare_sets(law, law)
    assert (finding.status, finding.kind) == (Status.PASS, None)
    finding.compare_sets(law, Layer(window=5).mask(0, 20, 20), "a")
    finding.compare_sets(law, Layer(window=3).mask(0, 20, 20), "b")
    assert finding.kind is Kind.SEES_TOO_MANY
    assert "b: query 3 lost [0]" in finding.message
    assert finding.first_bad == 3
    assert len(finding.rows) == 6
