"""The model table, the schedules and the ids of cases."""

from __future__ import annotations

import pytest

from harness.cases import schedules
from harness.cases.case import Case, parse, stable_seed
from harness.cases.models import PUBLISHED, TINY, pattern_types, tiny
from harness.cases.schedules import Feed, Reset, Rewind, Schedule, chunks

#: (layers that own a cache, of them full), as published.
CACHES = {
    "gemma2-2b": (26, 13),
    "gemma2-9b": (42, 21),
    "gemma3-1b": (26, 4),
    "gemma3-4b": (34, 5),
    "gemma3-12b": (48, 8),
    "gemma3-27b": (62, 10),
    "gemma3n-e2b": (20, 4),
    "gemma3n-e4b": (20, 4),
    "gemma4-e2b": (15, 3),
    "gemma4-e4b": (24, 4),
    "gemma4-26b": (30, 5),
    "gemma4-31b": (60, 10),
    "gpt-oss-20b": (24, 12),
    "gpt-oss-120b": (36, 18),
    "command-r7b": (32, 8),
    "mistral-7b-v0.1": (32, 0),
    "llama4-scout": (48, 12),
}


@pytest.mark.parametrize(("name", "counts"), CACHES.items())
def test_published_geometry(name: str, counts: tuple[int, int]) -> None:
    model = PUBLISHED[name]
    own = model.cached_layers
    full = [i for i in own if model.layer_types[i] == "full_attention"]
    assert (len(own), len(full)) == counts


def test_patterns_are_hugging_faces() -> None:
    assert [t[0] for t in pattern_types(12, 6)] == list("sssssfsssssf")
    e2b = pattern_types(35, 5)
    assert (e2b.count("sliding_attention"), e2b.count("full_attention")) == (28, 7)
    with pytest.raises(ValueError, match="sliding_window_pattern"):
        pattern_types(4, 1)
    with pytest.raises(ValueError, match="n_layers"):
        pattern_types(0, 2)


@pytest.mark.parametrize("name", TINY)
def test_tiny_models_keep_the_shape_of_theirs(name: str) -> None:
    model = TINY[name]
    assert model.n_heads is not None
    assert all(model.n_heads % model.layer_kv_heads(i) == 0 for i in range(model.n_layers))
    for i, source in enumerate(model.kv_sources):
        assert source <= i
        assert model.layer_types[source] == model.layer_types[i]


def test_shared_layers_read_the_last_of_their_type() -> None:
    model = tiny("gemma4-e2b")
    assert model.n_shared == 5
    assert model.kv_sources == (0, 1, 2, 3, 4, 3, 3, 3, 3, 4)


def test_an_isolated_layer_keeps_its_scheme_and_width() -> None:
    layer = tiny("gemma4-26b.full")
    assert layer.n_layers == 1
    assert layer.scheme == "interleaved"
    assert layer.layer_head_dim(0) == 2 * tiny("gemma4-26b").head_dim
    with pytest.raises(ValueError, match="no chunked_attention"):
        tiny("gemma4-26b.chunked")
    with pytest.raises(ValueError, match="unknown model"):
        tiny("gemma9")


def _all_cases() -> list[Case]:
    out: list[Case] = []
    for model in TINY.values():
        turn = model.window or model.chunk or 8
        for make in (
            schedules.standard,
            schedules.resets,
            schedules.rewinds,
            schedules.byte_runs,
        ):
            out += [Case(model, schedule) for schedule in make(turn, model.sink)]
    return out


def test_ids_are_unique_and_read_back() -> None:
    cases = _all_cases()
    assert len({case.id for case in cases}) == len(cases)
    assert all(parse(case.id) == case for case in cases)


@pytest.mark.parametrize(
    ("case_id", "named"),
    [
        ("mistral", "model/schedule/dtype/bN"),
        ("mistral/chunk-4/float32/x1", "model/schedule/dtype/bN"),
        ("mistrel/chunk-4/float32/b1", "unknown model 'mistrel'"),
        ("mistral/chunk-5/float32/b1", "unknown schedule 'chunk-5'"),
        ("mistral/chunk-4/int8/b1", "dtype must be one of"),
        ("mistral/chunk-4/float32/b0", "batch must be"),
    ],
)
def test_a_wrong_id_says_which_part(case_id: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        parse(case_id)


def test_seeds_are_stable_and_weights_are_one_per_model() -> None:
    assert stable_seed("mistral") == 1224902668
    a, b = parse("mistral/chunk-4/float32/b1"), parse("mistral/chunk-w/float64/b3")
    assert a.weights_seed == b.weights_seed
    assert a.seed != b.seed


@pytest.mark.parametrize("window", [1, 2, 5, 8, 9, 20])
@pytest.mark.parametrize("sink", [0, 2, 4])
def test_schedules_reach_the_wraps_that_they_are_named_for(window: int, sink: int) -> None:
    made = schedules.standard(window, sink) + schedules.resets(window, sink)
    assert sum("3wraps" in s.name for s in made) == 2
    for schedule in made:
        schedule.check_reach(window, sink)
        if "3wraps" in schedule.name:
            assert schedule.wraps == 3
            assert schedule.max_context > sink + 3 * 2 * window


def test_a_schedule_that_falls_short_is_refused() -> None:
    short = Schedule("short", (Feed(10),), wraps=3)
    with pytest.raises(ValueError, match="claims 3 wraps of 2 x 8 slots"):
        Case(tiny("mistral"), short)


def test_lengths_and_spans_follow_resets_and_rewinds() -> None:
    schedule = Schedule("mixed", (Feed(5), Rewind(2), Feed(3), Reset(), Feed(1)))
    assert schedule.spans() == [(0, 5), (2, 5), (0, 1)]
    assert (schedule.length, schedule.max_context, schedule.max_chunk) == (1, 5, 5)
    assert not schedule.plain
    with pytest.raises(ValueError, match="rewind to 9"):
        _ = Schedule("far", (Feed(5), Rewind(9))).length


def test_chunks_take_what_is_left() -> None:
    assert chunks(12, (5,)) == (Feed(5), Feed(5), Feed(2))
    assert chunks(6, (2, 3, 1)) == (Feed(2), Feed(3), Feed(1))
    assert chunks(0, (2,)) == ()
