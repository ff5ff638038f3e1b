"""The kernel against its peers on a CPU, as fractions of the speed of a large matrix product.

A call's speed is the work that a window needs, over the CPU seconds of all threads.  Products of
float32 matrices take turns with the calls, and the fraction is taken round by round.  So it says
how well a kernel uses the CPU, and a machine that is busy with something else changes it little.
The product is torch's own, of the library that the kernel runs on.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.bench import timing
from harness.bench.geometry import Geometry
from harness.bench.routing_onnx import attention as onnxruntime_attention
from harness.bench.timing import Call
from harness.law import Layer
from harness.schemes.band.kernel import banded, sizes_for

#: Rounds that are timed at most; a masked backward takes many seconds.
_ROUNDS = 5

#: The longest masked layer, unless `long` is given: its work grows with the square of the length.
_MASKED_UP_TO = 4096

#: The rows of the matrices whose product is the yardstick, and how many products one round times.
_SIDE, _PRODUCTS = 1024, 4

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]
Prepare = Callable[[Attention, Sequence[Tensor]], Call]


def geometries() -> list[Geometry]:
    """Gemma 4's sliding layers with eight query heads, in both dtypes."""
    dtypes = ("float32", "bfloat16")
    shapes = ((4096, 512), (8192, 1024))
    return [Geometry(n, w, heads=8, kv_heads=4, dtype=dtype) for n, w in shapes for dtype in dtypes]


def peers(repeats: int, *, long: bool = False) -> list[dict[str, Any]]:
    """The `entry` of every geometry, on one thread and on two."""
    found = []
    for threads in (1, 2):
        with timing.threads(threads):
            found += [entry(g, min(repeats, _ROUNDS), long=long) for g in geometries()]
    return found


def entry(geometry: Geometry, repeats: int, *, long: bool = False) -> dict[str, Any]:
    """Fractions of the product's speed by kind (forward, backward) and name, or why there is none.

    Raises ValueError for repeats < 1.
    """
    g, threads = geometry, torch.get_num_threads()
    attentions, inputs = named(g, long=long), tensors(g)
    out: dict[str, Any] = {"threads": threads, **vars(g), "ceiling": ceilings(g, inputs[0])}
    absent = {name: call for name, call in attentions.items() if isinstance(call, str)}
    present = {name: call for name, call in attentions.items() if not isinstance(call, str)}
    for kind, products, prepare in KINDS:
        calls, why = _that_run(present, prepare, inputs)
        out[kind] = fractions(calls, products * _product_flops(g), repeats) | absent | why
    shape = f"{threads} threads, {g.dtype}, S={g.length} W={g.window}"
    print(f"  peers, {shape}: banded {out['forward']['banded']}", file=sys.stderr, flush=True)
    return out


def needed_pairs(length: int, window: int) -> int:
    """Pairs of a query and a key that it sees."""
    short = min(length, window)
    return length * short - short * (short - 1) // 2


def ceilings(g: Geometry, q: Tensor) -> dict[str, float]:
    """What the blocks of `banded` leave at most: of the scores of a row, those that are needed."""
    sizes = vars(sizes_for(q, g.heads // g.kv_heads, g.window, g.head_dim**-0.5))
    return {kind: round(g.window / (g.window + n - 1), 3) for kind, n in sizes.items()}


def _product_flops(g: Geometry) -> int:
    """Operations of one product between the needed scores and a factor of head_dim columns."""
    return 2 * g.heads * g.head_dim * needed_pairs(g.length, g.window)


def fractions(calls: Mapping[str, Call], flops: int, repeats: int) -> dict[str, Any]:
    """The speed of each call over that of the product in the same rounds: medians."""
    timing.check_repeats(repeats)
    a, b = torch.ones(_SIDE, _SIDE), torch.ones(_SIDE, _SIDE)
    shares: dict[str, list[float]] = {name: [] for name in calls}

    def products() -> None:
        for _ in range(_PRODUCTS):
            torch.mm(a, b)

    def unit() -> float:
        return cpu_seconds(products) / (2 * _PRODUCTS * _SIDE**3)

    for call in calls.values():
        call()
    unit()
    for _ in range(repeats):
        before = unit()
        for name, call in calls.items():
            spent = cpu_seconds(call) / flops
            after = unit()
            shares[name].append((before + after) / 2 / spent)
            before = after
    return {name: round(statistics.median(found), 3) for name, found in shares.items()}


def cpu_seconds(call: Call) -> float:
    """CPU seconds of all threads of this process during a call."""
    began = time.process_time()
    call()
    return time.process_time() - began


def named(g: Geometry, *, long: bool = False) -> dict[str, Attention | str]:
    """The kernel and its peers by name; a string says why there is none."""
    masked = long or g.length <= _MASKED_UP_TO
    return {
        "banded": lambda q, k, v: banded(q, k, v, g.window),
        "flex_attention": _flex(g),
        "onnxruntime": onnxruntime_attention(g),
        "masked": _masked(g) if masked else "too long; see --long",
    }


def tensors(g: Geometry) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, k, v and the gradient of the output, laid out as models pass them."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (
        torch.randn(1, g.length, heads, g.head_dim, generator=generator)
        .to(getattr(torch, g.dtype))
        .transpose(1, 2)
        for heads in (g.heads, g.kv_heads, g.kv_heads, g.heads)
    )
    return q, k, v, grad


def _forward(attention: Attention, inputs: Sequence[Tensor]) -> Call:
    def call() -> None:
        with torch.no_grad():
            attention(*inputs[:3])

    return call


def _backward(attention: Attention, inputs: Sequence[Tensor]) -> Call:
    """The backward alone, over a graph that is kept."""
    q, k, v = (x.detach().requires_grad_(True) for x in inputs[:3])
    out = attention(q, k, v)
    return lambda: torch.autograd.grad(out, (q, k, v), inputs[3], retain_graph=True)


#: Name, products, and how a call is prepared.  The backward computes the scores again.
KINDS: tuple[tuple[str, int, Prepare], ...] = (
    ("forward", 2, _forward),
    ("backward", 5, _backward),
)


def _that_run(
    attentions: Mapping[str, Attention], prepare: Prepare, inputs: Sequence[Tensor]
) -> tuple[dict[str, Call], dict[str, str]]:
    """The prepared calls that do not raise, and why the others do."""
    working, why = {}, {}
    for name, attention in attentions.items():
        try:
            call = prepare(attention, inputs)
            call()
            working[name] = call
        except Exception as error:  # whatever a compiler or another package raises
            why[name] = _line(error)
    return working, why


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def _masked(g: Geometry) -> Attention:
    mask = Layer(window=g.window).mask(0, g.length, g.length)
    attend = torch.nn.functional.scaled_dot_product_attention
    return lambda q, k, v: attend(q, k, v, attn_mask=mask, enable_gqa=True)


def _flex(g: Geometry) -> Attention:
    """torch's flex_attention, compiled, with a block mask of the window."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        del batch, head
        return (key <= query) & (key > query - g.window)

    blocks = create_block_mask(seen, None, None, g.length, g.length, device="cpu")
    # Each shape by itself: a second shape would be compiled for any length, many times slower.
    torch.compiler.reset()
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, block_mask=blocks, enable_gqa=True)
