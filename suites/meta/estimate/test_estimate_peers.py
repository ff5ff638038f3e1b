"""Released estimators beside ours: asked as they are, absent without harm, and where they err."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import pytest

from harness.cases.models import PUBLISHED
from harness.estimate import gguf_file, hf_config, model_id, peers, table
from harness.estimate.geometry import Geometry, GeometryError
from harness.estimate.profiles import Heuristic, LlamaCpp, Request, UnsupportedCache

K128 = 131_072
SLIDING, FULL = "sliding_attention", "full_attention"


def by_name(geometry: Geometry, request: Request) -> dict[str, peers.PeerFigure]:
    return {figure.name: figure for figure in peers.figures(geometry, request)}


def test_figures_of_gemma_3_27b() -> None:
    """whichllm is the rule of thumb, byte for byte; hf-mem counts every layer as full."""
    geometry = model_id.read("gemma3-27b")
    found = by_name(geometry, Request(K128))
    assert found["whichllm"].nbytes == 2_196_504_575
    assert found["hf-mem"].nbytes == 62 * K128 * 16 * 256 * 2 == 66_571_993_088
    for figure in found.values():
        assert figure.version == metadata.version(figure.name)
    lines = {line.name.split()[0]: line.error for line in table.peer_rows(geometry, Request(K128))}
    true = LlamaCpp().total(geometry, Request(K128))
    assert lines["whichllm"] == (2_196_504_575 - true) / true
    assert round(lines["whichllm"], 2) == -0.81
    assert round(lines["hf-mem"], 2) == 4.84


@pytest.mark.parametrize("row", [m.row for m in model_id.RELEASED if m.active is None])
def test_our_rule_of_thumb_is_whichllms(row: str) -> None:
    """For every dense model of the table, at every context of the report."""
    model, geometry = model_id.released(row), model_id.read(row)
    for context in table.CONTEXTS:
        theirs = by_name(geometry, Request(context))["whichllm"].nbytes
        assert Heuristic(model.billions).total(geometry, Request(context)) == theirs


def test_a_peer_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "whichllm":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(peers.metadata, "version", version)
    found = by_name(model_id.read("gemma3-27b"), Request(K128))
    assert found["whichllm"].nbytes is None
    assert found["whichllm"].note == "not installed: pip install whichllm"
    assert found["hf-mem"].nbytes is not None


def test_a_peer_that_fails_hides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise KeyError("hidden_size")

    monkeypatch.setitem(peers.PEERS, "hf-mem", broken)
    found = by_name(model_id.read("gemma3-27b"), Request(K128))
    assert (found["hf-mem"].nbytes, found["hf-mem"].note) == (None, "KeyError: 'hidden_size'")
    assert found["whichllm"].nbytes == 2_196_504_575


def test_peers_are_asked_about_what_they_can_know() -> None:
    geometry = model_id.read("gemma3-27b")
    for request, model in (
        (Request(K128, k_type="q8_0"), geometry),
        (Request(K128), Geometry("mine", "gemma3", geometry.layers)),
    ):
        assert all(
            figure.nbytes is None and figure.note for figure in peers.figures(model, request)
        )


# What whichllm's resolver reads from a config or a GGUF architecture, and what is true.

GEMMA = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 12,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 512,
}
TRAPS = [
    pytest.param(
        {"model_type": "gemma3", "text_config": GEMMA},
        (1024, 1 / 6),
        {512, None},
        id="a nested window is not seen",
    ),
    pytest.param(
        {"model_type": "gemma3", "text_config": GEMMA | {"use_sliding_window": False}},
        (1024, 1 / 6),
        {None},
        id="nor a nested opt-out",
    ),
    pytest.param(
        GEMMA | {"layer_types": [FULL] * 12}, (512, 1 / 6), {None}, id="layer_types are not read"
    ),
    pytest.param(
        GEMMA | {"_sliding_window_pattern": 2},
        (512, 1 / 6),
        {512, None},
        id="nor is the underscored period",
    ),
    pytest.param(
        GEMMA | {"sliding_window": None}, (1024, 1 / 6), {None}, id="null takes the default"
    ),
    pytest.param(
        GEMMA | {"sliding_window": True}, (True, 1 / 6), set(), id="True passes for a window"
    ),
    pytest.param(
        GEMMA | {"model_type": "gemma3n_text"}, (None, None), {512, None}, id="Gemma 3n is absent"
    ),
    pytest.param(
        GEMMA | {"model_type": "gemma4_text", "layer_types": [SLIDING, FULL] * 6},
        (None, None),
        {512, None},
        id="Gemma 4 is absent",
    ),
    # And what it gets right.
    pytest.param(
        GEMMA | {"sliding_window_pattern": 6}, (512, 1 / 6), {512, None}, id="a flat config"
    ),
    pytest.param(
        GEMMA | {"model_type": "mistral"}, (None, None), {512}, id="Mistral's is not honoured"
    ),
    pytest.param(
        {**GEMMA, "model_type": "gemma", "sliding_window": None},
        (None, None),
        {None},
        id="Gemma 1 has none",
    ),
    pytest.param(GEMMA | {"use_sliding_window": False}, (None, None), {None}, id="an opt-out"),
]


@pytest.mark.parametrize(("config", "theirs", "ours"), TRAPS)
def test_traps_of_a_resolver(
    config: dict[str, Any], theirs: tuple[int | None, float | None], ours: set[int | None]
) -> None:
    """(window, share of full layers) as whichllm 0.5.21 reads them, and the windows we read."""
    from whichllm.models.sliding_window import _resolve_sliding_window

    assert _resolve_sliding_window(config, "owner/model") == theirs
    if ours:
        assert {layer.law.window for layer in hf_config.read(config).layers} == ours
    else:
        with pytest.raises(GeometryError, match="sliding_window must be an integer"):
            hf_config.read(config)


def test_traps_of_gguf_architectures() -> None:
    """gpt-oss by its real name gives whichllm nothing, and Gemma 3 1B another's window."""
    from whichllm.models.sliding_window import _resolve_sliding_window

    assert _resolve_sliding_window({}, "x", "gpt-oss") == (None, None)
    assert _resolve_sliding_window({}, "google/gemma-3-1b-it-GGUF", "gemma3") == (1024, 1 / 6)
    for arch, layers, window in (("gpt-oss", 24, 128), ("gemma3", 26, 512)):
        data = {
            "general.architecture": arch,
            f"{arch}.block_count": layers,
            f"{arch}.attention.head_count_kv": 8,
            f"{arch}.attention.key_length": 64,
            f"{arch}.attention.value_length": 64,
            f"{arch}.attention.sliding_window": window,
        }
        read = gguf_file.read(data)
        assert {layer.law.window for layer in read.layers} == {window, None}


def test_the_true_share_of_full_layers_is_not_one_in_six() -> None:
    layers = model_id.read("gemma3-27b").layers
    assert sum(layer.kind == "full" for layer in layers) == 10
    assert len(layers) == 62


# The table of the report


def test_the_published_table_is_whole() -> None:
    lines = list(table.published_lines())
    assert {line.geometry.name for line in lines} == set(PUBLISHED)
    assert {line.context for line in lines} == {8192, 32_768, 131_072}
    names = [line.name for line in _lines("gemma3-27b")]
    assert len(lines) == len(PUBLISHED) * 3 * len(names)
    without = [line.row for line in lines if line.row.nbytes is None]
    assert {row.name for row in without} == {"executorch.sink"}
    assert all(row.note for row in without)
    assert all(line.row.error is not None for line in lines if line.row.evidence == table.PEER)


def _lines(row: str) -> list[table.Row]:
    geometry, request = model_id.read(row), Request(8192)
    return [
        *(table.row(profile, geometry, request) for profile in table.defaults(geometry)),
        *table.peer_rows(geometry, request),
    ]


def test_a_row_without_a_figure_says_why() -> None:
    geometry = model_id.read("gemma3-27b")
    line = table.row(Heuristic(), geometry, Request(K128))
    assert (line.nbytes, line.note) == (None, "needs the number of parameters, in billions")
    with pytest.raises(UnsupportedCache):
        Heuristic().total(geometry, Request(K128))
