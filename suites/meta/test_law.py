"""The law against its own definition, and against brute force."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.law import Layer, influence

laws = st.one_of(
    st.just(Layer()),
    st.builds(Layer, window=st.integers(1, 9), sink=st.integers(0, 4)),
    st.builds(Layer, chunk=st.integers(1, 9)),
    st.builds(Layer, window=st.integers(1, 9), chunk=st.integers(1, 9)),
)


@pytest.mark.parametrize(
    ("field", "kwargs"),
    [
        ("window", {"window": 0}),
        ("window", {"window": -3}),
        ("window", {"window": True}),
        ("window", {"window": 4.0}),
        ("sink", {"window": 4, "sink": -1}),
        ("sink", {"window": 4, "sink": False}),
        ("sink=2", {"sink": 2}),
        ("chunk", {"chunk": 0}),
        ("chunk", {"chunk": True}),
    ],
)
def test_a_wrong_value_is_named(field: str, kwargs: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=field):
        Layer(**kwargs)  # type: ignore[arg-type]


def test_the_window_counts_the_query_itself() -> None:
    assert Layer(window=3).visible(10) == {8, 9, 10}
    assert Layer(window=1).visible(10) == {10}
    assert Layer(window=3, sink=2).visible(10) == {0, 1, 8, 9, 10}
    assert Layer(chunk=4).visible(10) == {8, 9, 10}


@given(laws, st.integers(0, 12), st.integers(1, 12), st.integers(1, 24))
def test_masks_are_the_law_read_row_by_row(
    layer: Layer, start: int, n_queries: int, n_keys: int
) -> None:
    mask = layer.mask(start, n_queries, n_keys)
    for row in range(n_queries):
        for k in range(n_keys):
            assert bool(mask[row, k]) == layer.sees(start + row, k)


@given(laws, st.integers(1, 24))
def test_an_unwritten_slot_is_seen_by_nobody(layer: Layer, n: int) -> None:
    assert not layer.between(torch.arange(n), torch.full((3,), -1)).any()


@given(laws, st.integers(1, 20), st.integers(1, 6))
def test_slots_hold_all_that_a_step_needs(layer: Layer, start: int, t: int) -> None:
    step = range(start, start + t)
    needed = {k for q in step for k in layer.visible(q)}
    assert len(needed) <= layer.slots(start + t, t)


@given(laws.filter(lambda layer: layer.window is None or layer.chunk is None))
def test_neighbours_are_other_laws(layer: Layer) -> None:
    for near in layer.neighbours():
        assert near != layer
        assert not near.mask(0, 40, 40).equal(layer.mask(0, 40, 40))


@given(st.lists(laws, min_size=1, max_size=3), st.integers(1, 14))
def test_influence_is_reachability(layers: list[Layer], n: int) -> None:
    reached = influence([layer.mask(0, n, n) for layer in layers])
    for q in range(n):
        frontier = {q}
        for layer in reversed(layers):
            frontier |= {k for p in frontier for k in layer.visible(p)}
        assert set(reached[q].nonzero().flatten().tolist()) == frontier


def test_influence_through_a_shared_cache_enters_where_its_source_does() -> None:
    window = Layer(window=2).mask(0, 8, 8)
    own = influence([window, window, window])
    shared = influence([window, window, window], kv_sources=[0, 1, 1])
    # Layer 2 reads what entered layer 1, so a token travels one window less far.
    assert own[7].sum() == 4
    assert shared[7].sum() == 3


def test_influence_needs_a_layer() -> None:
    with pytest.raises(ValueError, match="masks"):
        influence([])
