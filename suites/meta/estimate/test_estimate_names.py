"""Geometry from a name alone: whole words, in order, and no word against it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.cases.models import PUBLISHED
from harness.estimate import model_id
from harness.estimate.geometry import GeometryError, Sure, from_model


def test_every_model_of_the_table_has_a_name() -> None:
    assert {model.row for model in model_id.RELEASED} == set(PUBLISHED)


@pytest.mark.parametrize("model", model_id.RELEASED, ids=lambda model: model.row)
def test_rows_and_hub_ids(model: model_id.Published) -> None:
    for name in (model.row, model.hub, model.hub.lower(), model.hub.upper()):
        geometry = model_id.read(name)
        assert geometry.layers == from_model(PUBLISHED[model.row]).layers
        assert geometry.facts[0].sure is Sure.TABLE


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("gemma-3-27b", "gemma3-27b"),
        ("gemma3:27b", "gemma3-27b"),
        ("unsloth/gemma-3-27b-it-qat-GGUF", "gemma3-27b"),
        ("mlx-community/gemma-3-1b-it-4bit", "gemma3-1b"),
        ("bartowski/google_gemma-3-12b-it-Q4_K_M", "gemma3-12b"),
        ("somebody/gemma-3-27b-it-abliterated", "gemma3-27b"),
        ("gemma-3n-E2B-it-litert-lm", "gemma3n-e2b"),
        ("gemma-4-26B-A4B-it", "gemma4-26b"),
        ("gemma-4-26b", "gemma4-26b"),
        ("ggml-org/gpt-oss-20b-GGUF", "gpt-oss-20b"),
        ("gpt-oss:120b", "gpt-oss-120b"),
        ("Mistral-7B-Instruct-v0.1", "mistral-7b-v0.1"),
        ("mistral-7b-instruct-v0.3-q4", "mistral-7b-v0.3"),
        ("Llama-4-Scout-17B-16E-Instruct", "llama4-scout"),
        ("Phi-3-mini-4k-instruct-gguf", "phi3-mini-4k"),
        ("c4ai-command-r7b-12-2024", "command-r7b"),
        ("Qwen2.5-7B-Instruct-1M-no", None),
        # Another base, a merge, another size: some other geometry.
        ("mergers/Llama-gemma-3-27b", None),
        ("gemma-3-27b-mistral-7b-v0.1", None),
        ("DeepSeek-R1-Distill-Qwen-2.5-7B", None),
        ("gemma-3-27b-slerp", None),
        ("gemma-3-27b-pruned-20b", None),
        ("gemma-3-27b-to-12b", None),
        ("gpt-oss-20b-REAP", None),
        ("gemma-2-2x9b", None),
        ("Yarn-Mistral-7b-v0.1-128k", None),
        ("gemma-3-4b-it-mmproj", None),
        # Words that contain a known word, but are not equal to it.
        ("medgemma-3-27b", None),
        ("t5gemma-2-9b-9b", None),
        ("gemma-30-27b", None),
        ("gemma-3-127b", None),
        ("gemma-3-270m", None),
        ("gemma-27b", None),
        ("gemma-1.1-2b", None),
        ("Llama-3.1-8B", None),
        ("Mistral-7B-v0.2", None),
        ("Phi-3-mini-128k-instruct", None),
        ("owner/gemma-3-27b/other", None),
        ("27b-3-gemma", None),
        ("", None),
        ("///", None),
    ],
)
def test_names(name: str, row: str | None) -> None:
    if row is not None:
        assert model_id.read(name).name == row
        return
    with pytest.raises(GeometryError):
        model_id.read(name)


def test_messages_name_the_nearest_models_and_the_word() -> None:
    for name, message in (
        ("gemma-3-28b", "unknown model 'gemma-3-28b'; near: gemma3-27b"),
        ("mistral-7b", "unknown model 'mistral-7b'; near: mistral-7b-v0.3, mistral-7b-v0.1"),
        ("zzz", "one of: gemma2-2b, gemma2-9b,"),
        (
            "llama-gemma-3-27b",
            "names gemma3-27b, but 'llama' says that its geometry",
        ),
        ("gemma-3-4b-gemma-2-9b", "names gemma2-9b and gemma3-4b"),
    ):
        with pytest.raises(GeometryError) as caught:
            model_id.read(name)
        assert message in str(caught.value)


#: Arbitrary texts, and texts made of the words of known names; some name a model ('QWEN2.5:7B').
TEXTS = st.text(max_size=40) | st.lists(
    st.sampled_from(sorted({w for m in model_id.RELEASED for w in m.words})) | st.text("x-:/ .2"),
    max_size=6,
).map("-".join)


@given(TEXTS)
@example("QWEN2.5:7B")
@example("")
@example("llama\ngemma-3-27b")
@example("\0")
def test_a_text_names_a_model_or_gets_one_line(name: str) -> None:
    """A text gives a geometry of the model table, or an error of one line."""
    try:
        geometry = model_id.read(name)
    except GeometryError as error:
        said = str(error)
        assert said
        assert len(said.splitlines()) == 1
    else:
        assert geometry.name in PUBLISHED
        assert geometry.layers == from_model(PUBLISHED[geometry.name]).layers


@pytest.mark.parametrize("tail", ["x", "9", "-99b", "v2", ".5"])
def test_a_name_with_a_longer_last_word_is_another(tail: str) -> None:
    for model in model_id.RELEASED:
        with pytest.raises(GeometryError):
            model_id.read("-".join(model.words) + tail)
