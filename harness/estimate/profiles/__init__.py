"""What each runtime allocates for a geometry, layer by layer.

`PROFILES` holds the profile classes by name; `harness kv --runtime` takes these names.
"""

from __future__ import annotations

from harness.estimate.profiles import executorch, transformers
from harness.estimate.profiles.base import (
    PHASES,
    Honours,
    Profile,
    Request,
    RequestError,
    UnsupportedCache,
)
from harness.estimate.profiles.heuristic import Heuristic
from harness.estimate.profiles.ideal import Dense, Ideal
from harness.estimate.profiles.llama_cpp import LlamaCpp
from harness.estimate.profiles.mlx import Mlx
from harness.estimate.profiles.own import OwnRing, OwnStatic
from harness.estimate.profiles.vllm import Vllm

PROFILES: dict[str, type[Profile]] = {
    kind.name: kind
    for kind in (
        Dense,
        Ideal,
        LlamaCpp,
        Mlx,
        transformers.Dynamic,
        transformers.Static,
        Vllm,
        executorch.Ring,
        executorch.Sink,
        executorch.Static,
        OwnRing,
        OwnStatic,
        Heuristic,
    )
}

__all__ = [
    "PHASES",
    "PROFILES",
    "Dense",
    "Heuristic",
    "Honours",
    "Ideal",
    "LlamaCpp",
    "Mlx",
    "OwnRing",
    "OwnStatic",
    "Profile",
    "Request",
    "RequestError",
    "UnsupportedCache",
    "Vllm",
    "executorch",
    "transformers",
]
