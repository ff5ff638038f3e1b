"""Other released estimators (the peers), and their figures for a model's KV cache.

Each gets the model's hub id, its published number of parameters and a config.json that leaves no
figure out.  That is more than its own look-up would find, so an error is the estimator's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from harness.estimate.geometry import Geometry
from harness.estimate.hf_write import to_config
from harness.estimate.model_id import Published, released
from harness.estimate.profiles.base import Request


@dataclass(frozen=True)
class PeerFigure:
    """A peer's figure.  nbytes: None if it gives none; note then says why."""

    name: str
    version: str
    nbytes: int | None
    note: str = ""


def figures(geometry: Geometry, request: Request) -> list[PeerFigure]:
    """Every peer's figure for a geometry.

    A peer is only asked about a model in the model table with a cache in f16; the note says so
    otherwise.
    """
    return [_ask(name, ask, geometry, request) for name, ask in PEERS.items()]


_Ask = Callable[[Geometry, Published, Request], int]


def _ask(name: str, ask: _Ask, geometry: Geometry, request: Request) -> PeerFigure:
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return PeerFigure(name, "", None, f"not installed: pip install {name}")
    try:
        model = released(geometry.name)
    except KeyError:
        return PeerFigure(name, version, None, "only asked about models in the model table")
    if (request.k_type, request.v_type) != ("f16", "f16"):
        return PeerFigure(name, version, None, "only asked about a cache in f16")
    try:
        return PeerFigure(name, version, ask(geometry, model, request))
    except Exception as error:  # a peer's defect must not hide our figures
        return PeerFigure(name, version, None, f"{type(error).__name__}: {error}")


def _whichllm(geometry: Geometry, model: Published, request: Request) -> int:
    """whichllm's estimate: a hub listing goes through its parser, then its estimator."""
    from whichllm.engine.vram import estimate_kv_cache
    from whichllm.models.parser import _parse_model

    listing = {
        "id": model.hub,
        "config": to_config(geometry),
        "safetensors": {"total": int(model.billions * 1e9)},
    }
    info = _parse_model(listing)
    if info is None:
        raise LookupError("its parser rejects the model")
    return request.sequences * int(estimate_kv_cache(info, request.context))


def _hf_mem(geometry: Geometry, _model: Published, request: Request) -> int:
    """hf-mem's formula for safetensors models."""
    from hf_mem.safetensors.kv_cache import compute_safetensors_kv_cache_size

    config = to_config(geometry)
    size = compute_safetensors_kv_cache_size(config, "F16", request.context, request.sequences)
    return int(size)


PEERS: dict[str, _Ask] = {"whichllm": _whichllm, "hf-mem": _hf_mem}
