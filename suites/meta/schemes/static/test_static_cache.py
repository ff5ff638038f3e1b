"""The static scheme's own interface: masks and feeding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from harness.cases.models import TINY, Model, tiny
from harness.law import Layer
from harness.reference import tolerance
from harness.reference.decoder import dense_logits, make_weights
from harness.schemes.retention import span
from harness.schemes.static.cache import StaticDecoder, StaticIO, StaticLayout, model_cache_lens
from harness.schemes.static.layout import Style
from harness.schemes.static.masks import CacheSlots, clear, store

VOCAB = 64
STYLES: tuple[Style, ...] = ("shift_pointer", "smart_mask")

# ── masks: exact windows ────────────────────────────────────────────────────────────────────────

laws = st.one_of(
    st.just(Layer()),
    st.builds(Layer, window=st.integers(1, 9), sink=st.integers(0, 3)),
    st.builds(Layer, chunk=st.integers(1, 7)),
)


class Simulated:
    """A cache that stores positions instead of keys, independent of the slots' own positions."""

    PAD, EMPTY = -7, -1

    def __init__(self, layer: Layer, cache_len: int, style: Style, input_len: int) -> None:
        self.slots, self.input_len = CacheSlots(layer, cache_len, style), input_len
        self.cache = torch.full((1, cache_len), self.EMPTY)

    def feed(self, n: int) -> list[list[int]]:
        """The positions that the next n queries, in a padded chunk, see, with repetitions."""
        start = self.slots.held.length
        chunk = torch.arange(start, start + self.input_len)
        visible = self.slots.visible(chunk)
        update = torch.where(chunk < start + n, chunk, self.PAD)
        keys = torch.cat((self.cache[0], update))
        seen = [sorted(keys[row].tolist()) for row in visible[:n]]
        write = self.slots.write(n)
        assert len(set(write.slots.tolist())) == len(write.slots), "a slot is written twice"
        store(self.cache, update[None], 1, self.slots.layer.sink, write)
        return seen

    def rewind(self, target: int) -> None:
        forget = self.slots.rewind(target)
        clear(self.cache, self.EMPTY, 1, self.slots.layer.sink, forget)


@given(st.data())
def test_every_query_sees_exactly_its_keys_at_any_place(data: st.DataObject) -> None:
    """Before and after the cache fills, padded, C < L, C no multiple of L, after rewinds."""
    layer = data.draw(laws)
    needed = span(layer)
    spare = data.draw(st.integers(0, 5))
    length = layer.sink + max(1, spare if needed is None else needed + spare)
    style = data.draw(st.sampled_from(STYLES))
    input_len = data.draw(st.integers(1, 11))
    cache = Simulated(layer, length, style, input_len)
    held = cache.slots.held
    for _ in range(data.draw(st.integers(1, 12))):
        if data.draw(st.integers(0, 4)) == 0:
            target = data.draw(st.integers(0, held.length))
            missing = layer.visible(target) - {target} - set(cache.cache.flatten().tolist())
            before = cache.cache.clone()
            try:
                cache.rewind(target)
            except ValueError:
                assert missing, "refused though every key is held"
                assert cache.cache.equal(before)
            continue
        if held.last_start is not None and held.length > held.last_start:
            break
        start, n = held.length, data.draw(st.integers(1, input_len))
        for q, seen in enumerate(cache.feed(n), start):
            assert seen == sorted(layer.visible(q)), f"query {q}"


@given(st.integers(2, 9), st.integers(1, 4), st.integers(1, 5), st.sampled_from(STYLES))
def test_a_rewind_is_refused_exactly_where_a_key_is_gone(
    window: int, back: int, spare: int, style: Style
) -> None:
    cache = Simulated(Layer(window=window), window - 1 + spare, style, 4)
    for _ in range(12):
        cache.feed(4)
    refused = back > spare
    if refused:
        with pytest.raises(ValueError, match="overwritten"):
            cache.rewind(48 - back)
    else:
        cache.rewind(48 - back)
    assert cache.slots.held.length == (48 if refused else 48 - back)


# ── feeding ─────────────────────────────────────────────────────────────────────────────────────


def open_io(
    model: Model,
    max_context_len: int,
    *input_lens: int,
    style: Style = "shift_pointer",
    split_heads: bool = False,
    transpose_k: bool = False,
    mask_value: float = -float("inf"),
) -> StaticIO:
    """A feeder in float64 with a graph for each input length."""
    layout = StaticLayout(
        model,
        model_cache_lens(model, max_context_len, max(input_lens)),
        dtype=torch.float64,
        style=style,
        split_heads=split_heads,
        transpose_k=transpose_k,
        mask_value=mask_value,
    )
    graph = StaticDecoder(layout, make_weights(model, VOCAB, 1))
    return StaticIO(layout, dict.fromkeys(input_lens, graph), VOCAB, max_context_len)


def random_tokens(n: int, seed: int = 0) -> Tensor:
    return torch.randint(VOCAB, (1, n), generator=torch.Generator().manual_seed(seed))


def feeds(io: StaticIO, tokens: Tensor, sizes: Sequence[int]) -> Tensor:
    return torch.cat([io.feed(part) for part in torch.split(tokens, list(sizes), 1)], 1)


def assert_dense(got: Tensor, tokens: Tensor, model: Model) -> None:
    exact = dense_logits(make_weights(model, VOCAB, 1), tokens)[:, -got.shape[1] :]
    n_keys = torch.arange(1, tokens.shape[1] + 1)[-got.shape[1] :]
    bound = tolerance.row_bound(exact, exact, n_keys, model.head_dim, model.n_layers)
    assert (tolerance.row_error(got, exact) <= bound).all()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(("split_heads", "transpose_k"), [(False, True), (True, False)])
@pytest.mark.parametrize("name", sorted(TINY))
def test_a_ragged_run_gives_the_dense_logits(
    name: str, style: Style, split_heads: bool, transpose_k: bool
) -> None:
    model = tiny(name)
    io = open_io(model, 40, 5, style=style, split_heads=split_heads, transpose_k=transpose_k)
    tokens = random_tokens(35)
    assert_dense(feeds(io, tokens, (3, 13, 1, 1, 5, 7, 1, 4)), tokens, model)


def test_prefill_and_decode_graphs_share_the_caches() -> None:
    io, tokens = open_io(tiny("gemma4-e2b"), 48, 8, 1), random_tokens(30)
    assert io.plan(21) == [(8, 8), (8, 8), (8, 5)]
    assert io.plan(1) == [(1, 1)]
    assert_dense(feeds(io, tokens, (21, *(1,) * 9)), tokens, tiny("gemma4-e2b"))


def test_decode_is_greedy_and_resumes_after_a_padded_prefill() -> None:
    model, prompt = tiny("gemma3"), random_tokens(6)
    io = open_io(model, 64, 4)
    first = io.feed(prompt)[:, -1].argmax(-1)
    answers = io.decode(first, 9)
    run = torch.cat((prompt, first[:, None], answers), 1)
    dense = dense_logits(make_weights(model, VOCAB, 1), run).argmax(-1)
    assert answers.equal(dense[:, prompt.shape[1] : -1])


def test_a_finite_mask_value_hides_as_well() -> None:
    model, tokens = tiny("mistral"), random_tokens(25)
    io = open_io(model, 40, 4, mask_value=-30_000.0)
    assert_dense(io.feed(tokens), tokens, model)


@pytest.mark.parametrize("style", STYLES)
def test_windowed_layers_alone_go_on_for_ever(style: Style) -> None:
    model, tokens = tiny("mistral"), random_tokens(80)
    io = open_io(model, 16, 4, style=style)
    assert_dense(io.feed(tokens), tokens, model)


def snapshot(io: StaticIO) -> list[Tensor]:
    states = (*io.k_caches.values(), *io.v_caches.values())
    return [t.clone() for t in (*states, *(s.positions for s in io.slots.values()))]


def test_past_the_context_is_refused_with_the_state_as_it_was() -> None:
    model, tokens = tiny("gemma3"), random_tokens(40)
    io = open_io(model, 32, 4)
    io.feed(tokens[:, :24])
    before = snapshot(io)
    with pytest.raises(ValueError, match="past max_context_len=32; at most 8 more"):
        io.feed(tokens[:, 24:33])
    assert all(a.equal(b) for a, b in zip(before, snapshot(io), strict=True))
    assert_dense(io.feed(tokens[:, 24:32]), tokens[:, :32], model)
    with pytest.raises(ValueError, match="at most 0 more"):
        io.feed(tokens[:, 32:33])


def test_a_chunk_that_starts_past_the_cache_is_refused() -> None:
    io, tokens = open_io(tiny("gemma3"), 32, 4), random_tokens(32)
    feeds(io, tokens[:, :29], (28, 1))  # the full layers' caches hold 28 positions
    with pytest.raises(ValueError, match=r"starts at 29; .* holds 28 positions"):
        io.feed(tokens[:, 29:30])
    assert io.length == 29


@pytest.mark.parametrize("style", STYLES)
def test_a_rewind_gives_the_right_logits_or_raises(style: Style) -> None:
    model, tokens = tiny("gemma3"), random_tokens(40)
    io = open_io(model, 64, 4, style=style)
    io.feed(tokens[:, :30])
    before = snapshot(io)
    with pytest.raises(ValueError, match="position 18, which has been overwritten"):
        io.rewind(25)
    assert all(a.equal(b) for a, b in zip(before, snapshot(io), strict=True))
    io.rewind(29)
    other = torch.cat((tokens[:, :29], random_tokens(9, seed=1)), 1)
    assert_dense(io.feed(other[:, 29:]), other, model)


@pytest.mark.parametrize("name", ["gemma3", "qwen2"])  # a sliding layer first, a full one first
def test_a_refused_rewind_leaves_every_layer_as_it_was(name: str) -> None:
    model, tokens = tiny(name), random_tokens(40)
    io = open_io(model, 64, 4)
    io.feed(tokens[:, :30])
    before = snapshot(io)
    with pytest.raises(ValueError, match="overwritten"):
        io.rewind(20)
    assert all(a.equal(b) for a, b in zip(before, snapshot(io), strict=True))
    assert_dense(io.feed(tokens[:, 30:]), tokens, model)


def test_a_window_beyond_its_cache_ends_where_the_cache_does() -> None:
    model, tokens = tiny("gemma3"), random_tokens(20)
    lens = tuple(5 if law.bounded else 12 for law in model.layers)
    layout = StaticLayout(model, lens, dtype=torch.float64)
    io = StaticIO(layout, {2: StaticDecoder(layout, make_weights(model, VOCAB, 1))}, VOCAB)
    assert_dense(io.feed(tokens[:, :6]), tokens[:, :6], model)
    with pytest.raises(ValueError, match="holds 5 positions"):
        io.feed(tokens[:, 6:7])


@pytest.mark.parametrize("forget", ["reset", "rewind"])
def test_what_was_forgotten_cannot_poison_later_answers(forget: str) -> None:
    """A masked weight is 0, but 0 * inf is not: overflowed keys must leave the cache."""
    io, fresh, tokens = *(open_io(tiny("gemma3"), 40, 4) for _ in range(2)), random_tokens(12)
    for feeder in (io, fresh):
        feeder.feed(tokens[:, :6])
    for cache in (*io.k_caches.values(), *io.v_caches.values()):
        cache[..., -1, :] = torch.inf  # position 5
    if forget == "reset":
        io.reset()
        fresh.reset()
    else:
        io.rewind(5)
        fresh.rewind(5)
    assert io.feed(tokens[:, 6:]).equal(fresh.feed(tokens[:, 6:]))


def test_a_reset_run_has_the_bits_of_a_fresh_one() -> None:
    used, fresh = (open_io(tiny("gemma4-e2b"), 40, 4) for _ in range(2))
    used.feed(random_tokens(33))
    used.reset()
    tokens = random_tokens(21, seed=2)
    assert used.feed(tokens).equal(fresh.feed(tokens))


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("style must be one of", {"style": "rolling"}),
        ("one entry for each of gemma3's 6 layers, got 2", {"cache_lens": (8, 8)}),
        (r"cache_lens\[3\] .* got 0", {"cache_lens": (8, 8, 8, 0, 8, 8)}),
        ("mask_value must be negative", {"mask_value": 0.0}),
        ("batch .* got 0", {"batch": 0}),
    ],
)
def test_a_layout_that_cannot_be_is_refused(match: str, change: dict[str, object]) -> None:
    layout = StaticLayout(tiny("gemma3"), (8,) * 6)
    with pytest.raises(ValueError, match=match):
        replace(layout, **change)  # type: ignore[arg-type]
