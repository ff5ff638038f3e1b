"""Planted defects of the estimates: each must break a figure that was measured.

The measured figures are those of `test_estimate_profiles`; each mutant changes one rule, in a way
that an estimator might plausibly get it wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from test_estimate_profiles import K128, MEASURED

from harness.cases.models import pattern_types
from harness.estimate import elements, model_id
from harness.estimate.elements import Element
from harness.estimate.geometry import Geometry
from harness.estimate.profiles import (
    Heuristic,
    Ideal,
    LlamaCpp,
    Request,
    Vllm,
    executorch,
    heuristic,
    llama_cpp,
    mlx,
    transformers,
)
from harness.law import Layer

Plant = Callable[[pytest.MonkeyPatch], None]

SEED = [
    (Heuristic(27), "gemma3-27b", 2_196_504_575),
    (Heuristic(7), "mistral-7b-v0.1", 3_288_334_336),
]


def figures() -> Iterator[tuple[int, int]]:
    """(estimate, what was measured or published), in bytes."""
    for profile, request, row, mib in MEASURED:
        yield profile.total(model_id.read(row), request), int(mib * 2**20)
    for thumb, row, nbytes in SEED:
        yield thumb.total(model_id.read(row), Request(K128)), nbytes


def test_without_a_defect_every_figure_holds() -> None:
    assert all(said == true for said, true in figures())


def attribute(owner: Any, name: str, value: object) -> Plant:
    return lambda patch: patch.setattr(owner, name, value)


def options(kind: type, **fixed: object) -> Plant:
    """A profile that ignores one of its options."""
    real = kind.layer_bytes

    def deaf(self: Any, geometry: Geometry, request: Request) -> list[int]:
        return real(replace(self, **fixed), geometry, request)

    return attribute(kind, "layer_bytes", deaf)


def slots(kind: type, change: Callable[[int, Any], int]) -> Plant:
    """A profile with a wrong number of slots in bounded layers."""
    real = kind.layer_slots

    def off(self: Any, layer: Any, request: Request, *, honoured: bool) -> int:
        n = real(self, layer, request, honoured=honoured)
        return change(n, layer) if layer.law.bounded and honoured else n

    return attribute(kind, "layer_slots", off)


def geometry(change: Callable[[Geometry], Geometry]) -> Plant:
    """A reader that gets the geometry wrong."""
    real = model_id.read
    return attribute(model_id, "read", lambda name: change(real(name)))


def layers(change: Callable[[Any], Any]) -> Plant:
    return geometry(lambda g: replace(g, layers=tuple(change(layer) for layer in g.layers)))


def period(n: int) -> Plant:
    """Another layer pattern, with the window of the model."""

    def change(g: Geometry) -> Geometry:
        window = next((x.law.window for x in g.layers if x.law.window), None)
        if window is None:
            return g
        kinds = pattern_types(len(g.layers), n)
        laws = [Layer() if kind == "full_attention" else Layer(window=window) for kind in kinds]
        changed = (replace(x, law=law) for x, law in zip(g.layers, laws, strict=True))
        return replace(g, layers=tuple(changed))

    return geometry(change)


def storage(name: str, nbytes: int) -> Plant:
    return lambda patch: patch.setitem(elements.ELEMENTS, name, Element(name, 32, nbytes))


LLAMA = LlamaCpp.honoured
DEFECTS: dict[str, Plant] = {
    # llama.cpp
    "contexts are rounded to 32": attribute(llama_cpp, "_CELLS", 32),
    "no room for a micro-batch": attribute(LlamaCpp, "_micro_batch", lambda *_: 0),
    "the micro-batch is always 512": options(LlamaCpp, n_ubatch=512),
    "swa_full is not heard": options(LlamaCpp, swa_full=False),
    "unified is not heard": options(LlamaCpp, unified=False),
    "values are never padded": options(LlamaCpp, flash_attention=True),
    "Mistral's window is honoured": attribute(LlamaCpp, "honoured", LLAMA | {"mistral"}),
    "Gemma 4's window is not": attribute(LlamaCpp, "honoured", LLAMA - {"gemma4"}),
    "gpt-oss goes by another name": attribute(LlamaCpp, "honoured", LLAMA - {"gpt-oss"}),
    "q8_0 without its scales": storage("q8_0", 32),
    # geometry
    "shared layers own caches": layers(lambda x: replace(x, reads=None)),
    "one head_dim for all layers": layers(lambda x: replace(x, k_dim=256, v_dim=256)),
    "one window for all": layers(lambda x: replace(x, law=Layer(window=1024))),
    "no windows": layers(lambda x: replace(x, law=Layer())),
    "every fifth layer is full": period(5),
    "every sixth layer is full": period(6),
    "values are not counted": layers(lambda x: replace(x, v_dim=32)),
    # the other runtimes
    "ideal keeps W + 1": slots(Ideal, lambda n, _: n + 1),
    "a static cache keeps W - 1": slots(transformers.Static, lambda n, _: n - 1),
    "an ExecuTorch ring of W": slots(executorch.Ring, lambda n, _: n // 2),
    "no block for a window that starts in the middle of one": slots(Vllm, lambda n, _: n - 16),
    "a request's batch is left out": slots(Vllm, lambda _, x: x.law.window),
    "mlx-lm's ring keeps what a chunk needs": attribute(
        mlx, "_KINDS", {**mlx._KINDS, "sliding": mlx._growing}
    ),
    # the rule of thumb
    "decimal units": attribute(heuristic, "_BYTES", 3.5e6),
    "a window less its own key": layers(
        lambda x: replace(x, law=Layer(window=1023)) if x.law.window == 1024 else x
    ),
    "Mistral on the allowlist": attribute(Heuristic, "honoured", Heuristic.honoured | {"mistral"}),
    "Gemma 3 off the allowlist": attribute(Heuristic, "honoured", frozenset({"gemma2"})),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_breaks_a_figure(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mlx._slots.cache_clear()
    DEFECTS[name](monkeypatch)
    broken = sum(said != true for said, true in figures())
    mlx._slots.cache_clear()
    assert broken > 0
