"""Real models under the router: what it takes over, what it passes on, and a training step."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.cases.case import Case
from harness.cases.models import Model, tiny
from harness.cases.schedules import Feed, Schedule
from harness.reference import tolerance
from harness.schemes.band.decisions import Reason
from harness.schemes.band.routing import SWITCH, Router, routing
from harness.subjects.transformers.float64 import in_full_precision
from harness.subjects.transformers.models import model_for

MODELS = ("gemma4-26b", "gemma4-e2b", "gemma3", "mistral")
WINDOW, BATCH, VOCAB = 8, 3, 64
LENGTH = 3 * WINDOW + 5

pytestmark = [pytest.mark.needs("transformers"), pytest.mark.usefixtures("one_thread")]


def built(model: Model, dtype: str = "float32") -> Any:
    return model_for(Case(model, Schedule("any", (Feed(LENGTH),)), dtype), "sdpa")


def tokens(length: int = LENGTH, batch: int = BATCH) -> Tensor:
    return torch.randint(VOCAB, (batch, length), generator=torch.Generator().manual_seed(1))


def layers(model: Model) -> tuple[int, int]:
    """(sliding layers, full layers)."""
    full = model.layer_types.count("full_attention")
    return model.n_layers - full, full


def reasons(router: Router) -> dict[Reason, int]:
    return router.decisions.by_reason()


def expected(model: Model, sliding: Reason, calls: int = 1) -> dict[Reason, int]:
    n, full = layers(model)
    both = {sliding: calls * n, Reason.FULL: calls * full}
    return {reason: count for reason, count in both.items() if count}


def both(model: Any, ids: Tensor, **arguments: Any) -> tuple[Tensor, Tensor, Router]:
    """Logits without and with the router."""
    with torch.no_grad():
        want = model(ids, use_cache=False, **arguments).logits
        with routing() as router:
            got = model(ids, use_cache=False, **arguments).logits
    return want, got, router


@pytest.mark.parametrize("name", MODELS)
def test_a_plain_prefill_is_routed_in_every_sliding_layer(name: str) -> None:
    model = tiny(name)
    want, got, router = both(built(model), tokens())
    assert reasons(router) == expected(model, Reason.ROUTED)
    with torch.no_grad(), in_full_precision(torch.float64):
        exact = built(model, "float64")(tokens(), use_cache=False).logits
    n_keys = torch.arange(1, LENGTH + 1).clamp(max=WINDOW)
    bound = tolerance.row_bound(want, exact, n_keys, model.head_dim, model.n_layers)
    assert (tolerance.row_error(got, exact) <= bound).all()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_passed_on(name: str, side: str) -> None:
    model, mask = tiny(name), torch.ones(BATCH, LENGTH, dtype=torch.int64)
    mask[1, slice(0, 5) if side == "left" else slice(LENGTH - 5, LENGTH)] = 0
    want, got, router = both(built(model), tokens(), attention_mask=mask)
    assert reasons(router) == expected(model, Reason.NOT_BAND)
    assert torch.equal(got, want)


@pytest.mark.parametrize("name", MODELS)
def test_packed_sequences_are_passed_on(name: str) -> None:
    model = tiny(name)
    first = LENGTH // 2
    positions = torch.cat((torch.arange(first), torch.arange(LENGTH - first)))[None]
    want, got, router = both(built(model), tokens(batch=1), position_ids=positions)
    assert reasons(router) == expected(model, Reason.NOT_BAND)
    assert torch.equal(got, want)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("length", "reason"),
    [(WINDOW - 1, Reason.SHORT), (WINDOW, Reason.SHORT), (WINDOW + 1, Reason.ROUTED)],
)
def test_lengths_around_the_window(name: str, length: int, reason: Reason) -> None:
    model = tiny(name)
    want, got, router = both(built(model), tokens(length))
    assert reasons(router) == expected(model, reason)
    if reason is Reason.SHORT:
        assert torch.equal(got, want)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("chunk", [1, 5])
def test_steps_over_a_cache_are_passed_on(name: str, chunk: int) -> None:
    model, ids = tiny(name), tokens(LENGTH + 2 * chunk)
    outputs = []
    for routed in (False, True):
        with routing() if routed else nullcontext() as router, torch.no_grad():
            prefill = built(model)(ids[:, :LENGTH], use_cache=True)
            # Each run has its own prefill; only the steps after it are compared bit for bit.
            steps, cache = [], prefill.past_key_values
            if router is not None:
                assert reasons(router) == expected(model, Reason.ROUTED)
                router.decisions.clear()
            for at in (LENGTH, LENGTH + chunk):
                now = ids[:, at : at + chunk]
                steps.append(built(model)(now, past_key_values=cache, use_cache=True).logits)
            outputs.append(torch.cat(steps, 1))
    assert router is not None
    # Layers that share keys with another layer get those of the whole context.
    kinds = {Reason.FULL, Reason.DECODE if chunk == 1 else Reason.CACHED}
    assert set(reasons(router)) <= kinds
    assert router.decisions.routed == 0
    assert not tolerance.moved(*outputs).any()


def test_bidirectional_attention_is_passed_on() -> None:
    model = tiny("gemma4-26b")
    both_ways = copy.deepcopy(built(model))
    both_ways.config.use_bidirectional_attention = "all"
    both_ways.config.is_causal = False  # what the config sets for "all" when it is made
    for layer in both_ways.model.layers:
        layer.self_attn.is_causal = False
    want, got, router = both(both_ways, tokens())
    sliding, full = layers(model)
    assert router.decisions.routed == 0
    assert reasons(router) == {Reason.NOT_BAND: sliding, Reason.FULL: full}
    assert torch.equal(got, want)
    assert tolerance.moved(want, both(built(model), tokens())[0]).any()


def test_the_switch_passes_everything_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny("gemma4-26b")
    monkeypatch.setenv(SWITCH, "0")
    want, got, router = both(built(model), tokens())
    assert reasons(router) == {Reason.OFF: model.n_layers}
    assert torch.equal(got, want)


def two_layers(name: str) -> Model:
    """Two layers of a family: a sliding one, and a full one if the family has any."""
    model = tiny(name)
    kinds = sorted(set(model.layer_types), reverse=True)
    return replace(model, layer_types=(kinds[0], kinds[-1]), n_shared=0, name=f"{name}.two")


@pytest.mark.parametrize("name", ["gemma4-26b", "mistral"])
def test_compiled_graphs_do_not_change(name: str) -> None:
    """Traced calls are passed on: the bits are those of a graph compiled without a router."""
    law = two_layers(name)  # tracing takes a second for each layer
    model, ids = built(law), tokens()
    answers = []
    for routed in (False, True):
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        with routing() if routed else nullcontext() as router, torch.no_grad():
            answers.append(compiled(ids, use_cache=False).logits)
            if router is not None:
                assert router.decisions.counts.total() == 0
                model(ids, use_cache=False)  # eager calls outside the graph are routed
                assert router.decisions.routed == layers(law)[0]
    assert torch.equal(*answers)


def trained(
    model: Model, dtype: str, steps: int, routed: bool = False, window: int = WINDOW
) -> tuple[Tensor, Router | None]:
    """Losses (steps, 1) of AdamW on one batch after another."""
    network = copy.deepcopy(built(model, dtype)).train().requires_grad_(True)
    network.config.sliding_window = window
    for layer in network.model.layers:
        if getattr(layer.self_attn, "sliding_window", None) is not None:
            layer.self_attn.sliding_window = window
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    ids = tokens(LENGTH, steps * 2).split(2)
    with routing() if routed else nullcontext() as router, in_full_precision(network.dtype):
        for batch in ids:
            optimizer.zero_grad()
            logits = network(batch, use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten()
            )
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
    return torch.stack(losses)[:, None], router


@pytest.mark.parametrize("name", ["gemma4-26b", "gemma3", "mistral"])
def test_twenty_training_steps_give_the_same_losses(name: str) -> None:
    """As close to float64 as the unrouted run; a window one key wider or narrower is not."""
    model, steps = two_layers(name), 20
    exact, _ = trained(model, "float64", steps)
    own, _ = trained(model, "float32", steps)
    got, router = trained(model, "float32", steps, routed=True)
    assert router is not None
    assert reasons(router) == expected(model, Reason.ROUTED, steps)
    # A step inherits the errors of the steps before it, so the bounds do not fall.
    terms = torch.full((steps,), LENGTH)
    bound = tolerance.row_bound(own, exact, terms, model.head_dim, model.n_layers)
    bound = bound.cummax(0).values
    assert (tolerance.row_error(got, exact) <= bound).all()
    wrong = [trained(model, "float64", steps, window=w)[0] for w in (WINDOW - 1, WINDOW + 1)]
    margin = tolerance.margin(exact, wrong, bound)
    assert margin is not None
    assert margin >= tolerance.SEPARATION


def test_gradient_checkpointing_routes_the_forward_both_times() -> None:
    model = tiny("gemma4-26b")
    network = copy.deepcopy(built(model)).train().requires_grad_(True)
    network.activation_checkpointing_enable()
    grads = []
    for checkpointed in (True, False):
        if not checkpointed:
            network.activation_checkpointing_disable()
        network.zero_grad()
        with routing() as router:
            network(tokens(), use_cache=False).logits.square().mean().backward()
        assert reasons(router) == expected(model, Reason.ROUTED, 2 if checkpointed else 1)
        grads.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
