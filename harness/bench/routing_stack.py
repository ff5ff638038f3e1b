"""A stack of real Gemma 4 layers, five sliding and one global, with and without the router."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.bench.routing_timing import device_name, interleaved, tell
from harness.cases.models import PUBLISHED, Model
from harness.schemes.band.routing import routing

#: Hidden and inner size, small for four heads of 256: a training step takes two threads minutes at
#: most, and attention takes a larger part of it than in the published models.
HIDDEN, INNER, VOCAB = 512, 2048, 64
LENGTHS = {"cpu": (4096, 8192), "cuda": (4096, 8192, 16384, 32768)}
#: Rounds on a CPU, where a step of the stack takes seconds.
_FEWEST = 3


def stacks(repeats: int, device: torch.device) -> list[dict[str, Any]]:
    """Times and speed-ups of the stack at each length: a forward, and a training step (AdamW)."""
    dtypes = ("bfloat16",) if device.type == "cuda" else ("float32", "bfloat16")
    times = repeats if device.type == "cuda" else min(repeats, _FEWEST)
    return [
        figures(build(dtype, device), length, times)
        for dtype in dtypes
        for length in LENGTHS[device.type]
    ]


def model() -> Model:
    """One period of Gemma 4 26B: window 1024, head_dim 256, in the global layer 512."""
    return PUBLISHED["gemma4-26b"].tiny(window=1024, head_dim=256)


def build(dtype: str, device: torch.device, shape: Model | None = None) -> Any:
    """The stack as a transformers model with random weights.  shape: in place of `model()`."""
    from transformers import AutoModelForCausalLM

    from harness.subjects.transformers.models import config_for

    config = config_for(replace(shape or model(), name="stack"), VOCAB)
    config.hidden_size, config.intermediate_size = HIDDEN, INNER
    config.max_position_embeddings = max(LENGTHS["cuda"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = AutoModelForCausalLM.from_config(
            config, attn_implementation="sdpa", dtype=getattr(torch, dtype)
        )
    return built.to(device)


def figures(network: Any, length: int, repeats: int) -> dict[str, Any]:
    """Times and speed-ups of a network made by `build`, at batch 1.

    network: with and without the router, for a forward and a training step.
    """
    device = next(network.parameters()).device
    ids = torch.randint(VOCAB, (1, length), generator=torch.Generator().manual_seed(1)).to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5)

    def forward() -> Tensor:
        logits: Tensor = network(ids, use_cache=False).logits
        return logits

    def without_gradients() -> None:
        with torch.no_grad():
            forward()

    def training_step() -> None:
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(forward()[0, :-1].float(), ids[0, 1:])
        torch.autograd.backward(loss)
        optimizer.step()

    def routed(call: Callable[[], None]) -> Callable[[], None]:
        def inner() -> None:
            with routing():
                call()

        return inner

    with routing() as router:
        without_gradients()
    shape = network.config
    out: dict[str, Any] = {
        "device": device_name(device),
        "length": length,
        "dtype": str(network.dtype).removeprefix("torch."),
        "layer_types": list(shape.layer_types),
        "window": shape.sliding_window,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "routed_calls": router.decisions.routed,
        "passed_on": router.decisions.passed_on,
    }
    for name, call in (("forward", without_gradients), ("training step", training_step)):
        found = interleaved({"masked": call, "routed": routed(call)}, repeats, device)
        out[name] = found.figures() | found.speedup("masked", "routed")
    tell(f"stack, {out['dtype']}, S={length}", out)
    return out
