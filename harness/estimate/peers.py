"""Other estimators, as released: what they say of a model's KV cache.

Each is given the model's hub id, its published number of parameters and a config.json that states
every figure, more than its own look-up finds; what is off then is the estimator's.
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
    """What a peer says.  nbytes: None where it says nothing; note then says why."""

    name: str
    version: str
    nbytes: int | None
    note: str = ""


def figures(geometry: Geometry, request: Request) -> list[PeerFigure]:
    """Every peer's figure for a model of the model table, fp16."""
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
        return PeerFigure(name, version, None, "asked about models of the table alone")
    if (request.k_type, request.v_type) != ("f16", "f16"):
        return PeerFigure(name, version, None, "asked in f16 alone")
    try:
        return PeerFigure(name, version, ask(geometry, model, request))
    except Exception as error:  # a peer's defect must not hide our figures
        return PeerFigure(name, version, None, f"{type(error).__name__}: {error}")


def _whichllm(geometry: Geometry, model: Published, request: Request) -> int:
    """Its listing of a hub model through its parser, then its estimate."""
    from whichllm.engine.vram import estimate_kv_cache
    from whichllm.models.parser import _parse_model

    listing = {
        "id": model.hub,
        "config": to_config(geometry),
        "safetensors": {"total": int(model.billions * 1e9)},
    }
    info = _parse_model(listing)
    if info is None:
        raise LookupError("it does not take the model up")
    return request.sequences * int(estimate_kv_cache(info, request.context))


def _hf_mem(geometry: Geometry, _model: Published, request: Request) -> int:
    """Its formula for safetensors models."""
    from hf_mem.safetensors.kv_cache import compute_safetensors_kv_cache_size

    config = to_config(geometry)
    size = compute_safetensors_kv_cache_size(config, "F16", request.context, request.sequences)
    return int(size)


PEERS: dict[str, _Ask] = {"whichllm": _whichllm, "hf-mem": _hf_mem}
