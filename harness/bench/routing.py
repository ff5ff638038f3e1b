"""A sliding layer, and a stack of layers: masked SDPA against the routed kernel.

Calls take turns in one process, and ratios are taken round by round.  Every entry names its device,
so that results from several machines can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.bench import timing
from harness.bench.geometry import Geometry
from harness.bench.routing_timing import device_name, interleaved, tell
from harness.law import Layer
from harness.memory import measure
from harness.schemes.band.mask import read_band
from harness.schemes.band.routing import AttentionFunction, Router
from harness.subjects.own.routed import LayerModule, original

THREADS = 2
KINDS = ("forward", "forward and backward")

#: Masked attention takes time that grows with the square of the length.  At longer lengths than
#: these a round takes a CPU a minute or more, so only the kernel is timed, unless `long` is given.
MASKED_UP_TO = {"cpu": 8192, "cuda": 32768}
#: Peak bytes are measured up to these lengths.  On a CPU this runs on one thread, on which longer
#: masked calls take too long.
_BYTES_UP_TO = {"cpu": 4096, "cuda": 32768}
#: Up to this length there are `repeats` rounds.  Longer calls vary less and get fewer.
_ALL_REPEATS_UP_TO = 2048
_FEWEST = 3


def layers(device: str) -> list[Geometry]:
    """Gemma 4's sliding geometry: head_dim 256, two query heads per key head, window 1024.

    At length 4096 also the window of 512 that its small models have.  On CUDA in half precision
    only.
    """
    dtypes = ("bfloat16",) if device == "cuda" else ("float32", "bfloat16")
    lengths = (1024, 2048, 4096, 8192, 16384, 32768)
    return [Geometry(n, dtype=dtype) for dtype in dtypes for n in lengths] + [
        Geometry(4096, 512, dtype=dtype) for dtype in dtypes
    ]


def run(repeats: int = 31, *, long: bool = False) -> dict[str, Any]:
    """Figures of layers and of the stack, on CUDA if available, else on two threads of the CPU.

    long: also time masked layers of every length on a CPU, which takes two threads most of an hour.
    Returns, for each layer, median seconds, the speed-up of the routed call over masked SDPA, its
    time relative to the bare kernel's, peak bytes, and the cost of the band test as a fraction of a
    masked forward; for each stack, median seconds and speed-ups; on a CPU
    also `peers`.  If transformers is not installed,
    the result says so instead.  Raises ValueError for repeats < 1.
    """
    from harness.bench.routing_peers import peers
    from harness.bench.routing_stack import stacks

    timing.check_repeats(repeats)
    try:
        import transformers  # noqa: F401  # its attention function is what is replaced
    except ImportError:
        return {**timing.environment(repeats), "not installed": "transformers"}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with timing.threads(THREADS):
        return {
            **timing.environment(repeats),
            "device": device_name(device),
            "peers": peers(repeats, long=long) if device.type == "cpu" else [],
            "layers": [layer(g, repeats, device, long=long) for g in layers(device.type)],
            "stacks": stacks(repeats, device),
        }


def rounds(repeats: int, length: int) -> int:
    """How many rounds to run at a length: fewer if it is long."""
    return min(repeats, max(_FEWEST, repeats * _ALL_REPEATS_UP_TO // max(length, 1)))


def layer(
    geometry: Geometry, repeats: int, device: torch.device, *, long: bool = False
) -> dict[str, Any]:
    """The figures of one layer.

    Masked SDPA is included up to the length of `MASKED_UP_TO`, or at any length if `long`.
    """
    bench = _Layer(geometry, device, masked=long or geometry.length <= MASKED_UP_TO[device.type])
    out: dict[str, Any] = {"device": device_name(device), **vars(geometry)}
    out["kernel"] = bench.kernel_name
    if bench.with_masked:
        out |= bench.band_test(repeats)
    for kind in KINDS:
        calls = bench.calls(kind)
        found = interleaved(calls, rounds(repeats, geometry.length), device)
        entry = found.figures()
        if bench.with_masked:
            entry["routed_over_kernel"] = timing.ratio(found.seconds, "routed", "kernel")
            entry |= found.speedup("masked", "routed")
        exact = geometry.dtype == "float32" or device.type == "cuda"  # half varies with the CPU
        if exact and geometry.length <= _BYTES_UP_TO[device.type]:
            entry["peak_bytes"] = {
                name: measure(call, warmup=0, device=device).peak_bytes
                for name, call in calls.items()
            }
        out[kind] = entry
    tell(f"layer, {geometry.dtype}, S={geometry.length} W={geometry.window}", out)
    return out


class _Layer:
    """The inputs of a layer, laid out as a model passes them, and the calls to compare."""

    def __init__(self, geometry: Geometry, device: torch.device, *, masked: bool) -> None:
        self.geometry, self.device = geometry, device
        self.masked = original()
        self.router = Router(self.masked)
        self.module = LayerModule(geometry.heads // geometry.kv_heads, geometry.window)
        self.with_masked = masked
        self.q, self.k, self.v, self.grad = self._inputs()
        self.mask = self._mask() if self.with_masked else None
        _, kernel = self.router.choose(self.q, self.k, self.v)
        if kernel is None:
            raise RuntimeError(f"no kernel for {geometry}")
        self.kernel, self.kernel_name = kernel, kernel.name

    def _inputs(self) -> Iterator[Tensor]:
        g = self.geometry
        generator = torch.Generator().manual_seed(0)
        for heads in (g.heads, g.kv_heads, g.kv_heads, g.heads):
            x = torch.randn(1, g.length, heads, g.head_dim, generator=generator)
            yield x.to(self.device, getattr(torch, g.dtype)).transpose(1, 2)

    def _mask(self) -> Tensor:
        n = self.geometry.length
        return Layer(window=self.geometry.window).mask(0, n, n)[None, None].to(self.device)

    def band_test(self, repeats: int) -> dict[str, float]:
        """The time of one band test, in seconds and as a fraction of a masked forward.

        The test reads a mask once, and all sliding layers of a model share the mask.
        """
        assert self.mask is not None
        calls: dict[str, Callable[[], object]] = {
            "band test": partial(read_band, self.mask, self.geometry.window),
            "masked": self.calls(KINDS[0])["masked"],
        }
        seconds = interleaved(calls, rounds(repeats, self.geometry.length), self.device).seconds
        return {
            "band_test_s": timing.medians(seconds)["band test"],
            "band_test_of_masked": timing.ratio(seconds, "band test", "masked"),
        }

    def calls(self, kind: str) -> dict[str, Callable[[], object]]:
        """The calls to compare.  kind: of `KINDS`, forward or forward and backward.

        The routed call does not test its mask again, like all sliding layers of a model except the
        first: the warm-up has done it, and the verdict is kept with the mask.
        """
        found = {"kernel": self._bare}
        if self.with_masked:
            found["routed"] = partial(self._attention, self.router)
            found["masked"] = partial(self._attention, self.masked)
        step = self._forward if kind == KINDS[0] else self._both
        return {name: partial(step, call) for name, call in found.items()}

    def _attention(self, function: AttentionFunction) -> Tensor:
        window = self.geometry.window
        out, _ = function(self.module, self.q, self.k, self.v, self.mask, sliding_window=window)
        return out

    def _bare(self) -> Tensor:
        scale = self.geometry.head_dim**-0.5
        out = self.kernel(self.q, self.k, self.v, self.geometry.window, scale)
        return out.transpose(1, 2).contiguous()

    def _forward(self, call: Callable[[], Tensor]) -> None:
        with torch.no_grad():
            call()

    def _both(self, call: Callable[[], Tensor]) -> None:
        leaves = [x.requires_grad_(True) for x in (self.q, self.k, self.v)]
        torch.autograd.grad(call(), leaves, self.grad.transpose(1, 2))
