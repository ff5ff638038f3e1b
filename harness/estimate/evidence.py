"""How a figure is known: measured in this repository's tests, for this family, or not."""

from __future__ import annotations

from harness.estimate.geometry import Geometry
from harness.estimate.profiles import Dense, Heuristic, Ideal, Profile, Vllm, transformers

#: The families of the model table: tests allocate their caches in every runtime.
TABLED = frozenset(
    {
        *("gemma2", "gemma3", "gemma3n", "gemma4", "gpt-oss", "cohere2", "mistral", "llama4"),
        *("llama", "phi3", "qwen2"),
    }
)

#: What is said of every other family.
FORMULA = "formula, not measured"

#: Their evidence does not depend on a family: a law, a rule of thumb, or what the source says.
_ANY_FAMILY = (Dense, Ideal, Heuristic, Vllm)


def known_by(profile: Profile, geometry: Geometry) -> str:
    """How a profile's figure for a geometry is known."""
    if isinstance(profile, _ANY_FAMILY) or geometry.family in TABLED:
        return profile.evidence
    if isinstance(profile, transformers.Dynamic):
        from harness.estimate.decoders import measured

        if geometry.family in measured.families():
            return profile.evidence
    return FORMULA
