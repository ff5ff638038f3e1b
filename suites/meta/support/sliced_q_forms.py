"""Hypothesis strategies: every way to write one attention that Core ML allows."""

from __future__ import annotations

from hypothesis import strategies as st

from harness.subjects.coreml.sliced_q_programs import DYNAMIC, Form

MAX_LENGTH = 130


#: Nothing; one length; any of them.
dynamic = (
    st.just(frozenset[str]())
    | st.sampled_from(DYNAMIC).map(lambda name: frozenset({name}))
    | st.frozensets(st.sampled_from(DYNAMIC))
)


@st.composite
def forms(draw: st.DrawFn) -> Form:
    """Ranks 3 to 5, lengths 1 to 130, masks of every rank and type, lengths known late."""
    rank = draw(st.integers(3, 5))
    leading = tuple(draw(st.integers(1, 3)) for _ in range(rank - 2))
    length = draw(st.integers(1, MAX_LENGTH))
    keys = draw(st.integers(1, 12))
    width, value = draw(st.sampled_from([1, 4, 8])), draw(st.sampled_from([1, 3, 8]))
    dtype = draw(st.sampled_from(["float32", "float16"]))
    scores = (*leading, length, keys)
    mask = None
    if draw(st.booleans()):
        of_rank = scores[len(scores) - draw(st.integers(1, rank)) :]
        mask = (*(draw(st.sampled_from([d, 1])) for d in of_rank[:-1]), keys)
    return Form(
        query=(*leading, length, width),
        key=(*leading, keys, width),
        value=(*leading, keys, value),
        dtype=dtype,
        mask=mask,
        mask_dtype=draw(st.sampled_from(["bool", "float32", "float16"])) if mask else "bool",
        dynamic=draw(dynamic),
        inside=draw(st.sampled_from([False, False, False, True])),
    )


dividers = st.integers(1, 64)
