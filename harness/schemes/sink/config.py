"""Options of a sink ring: the ``"<sink>,<window>"`` form and a YAML file.

Options that ExecuTorch's llm config has too have the same names here, so that a user's file can be
reused.  Options that contradict each other are refused when the file is read, not when the model
runs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from harness.cases.case import DTYPES
from harness.contract import CacheShape
from harness.law import Layer, check_int
from harness.schemes.sink.ring import SinkRingCache

#: The example that comes with the package.
EXAMPLE = Path(__file__).with_name("sink_ring.yaml")

_GONE = {
    "eviction_batch_size": "a ring evicts nothing: slots are overwritten; leave it out",
    "sliding_window": 'the window is the second number of use_attention_sink, "<sink>,<window>"',
}


def parse_attention_sink(text: object) -> Layer:
    """The law of ``"<sink>,<window>"``: exactly two integers, sink >= 0 and window >= 1.

    "0,<window>" is a plain sliding window.  Raises ValueError that shows what was given.
    """
    match = re.fullmatch(r"\s*([0-9]+)\s*,\s*([0-9]+)\s*", text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            f'use_attention_sink must be "<sink>,<window>", two non-negative integers, got {text!r}'
        )
    sink, window = int(match[1]), int(match[2])
    if window < 1:
        raise ValueError(f"use_attention_sink must have a window >= 1, got {text!r}")
    return Layer(window=window, sink=sink)


@dataclass(frozen=True)
class SinkRingConfig:
    """Validated options of a sink ring; see the example file for what each means.

    Raises ValueError naming the option, its value and what is allowed.
    """

    use_attention_sink: str
    max_chunk: int = 1
    ring: int | None = None
    dtype: str = "float32"
    use_kv_cache: bool = True
    use_sdpa_with_kv_cache: bool = False
    quantize_kv_cache: bool = False

    def __post_init__(self) -> None:
        check_int("max_chunk", self.max_chunk, 1)
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        for option, allowed, why in (
            ("use_kv_cache", True, "a sink lives in the cache"),
            ("use_sdpa_with_kv_cache", False, "the fused op cannot read a ring"),
            ("quantize_kv_cache", False, "a ring holds keys in its dtype"),
        ):
            value = getattr(self, option)
            if value is not allowed:
                raise ValueError(
                    f"{option} must be {str(allowed).lower()} with use_attention_sink, "
                    f"got {value!r}: {why}"
                )
        layer = self.layer
        if self.ring is not None and layer.window is not None:
            least = layer.window - 1 + self.max_chunk
            check_int(
                f"ring (window={layer.window} - 1 + max_chunk={self.max_chunk})", self.ring, least
            )

    @property
    def layer(self) -> Layer:
        """The law that the options ask for."""
        return parse_attention_sink(self.use_attention_sink)

    def new_cache(
        self, batch: int, n_kv_heads: int, head_dim: int, device: str = "cpu"
    ) -> SinkRingCache:
        """An empty cache with these options."""
        shape = CacheShape(
            batch=batch,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            max_context=sys.maxsize,  # generation has no end
            max_chunk=self.max_chunk,
            dtype=getattr(torch, self.dtype),
            device=torch.device(device),
        )
        return SinkRingCache(self.layer, shape, self.ring)


def load_config(source: str | Path | Mapping[str, Any]) -> SinkRingConfig:
    """Options from a YAML file or a mapping.

    Raises ValueError for a file that is missing or not a YAML mapping, an unknown or missing
    option, and everything that `SinkRingConfig` refuses.
    """
    options = dict(source) if isinstance(source, Mapping) else _read(Path(source))
    known = [field.name for field in fields(SinkRingConfig)]
    for option in options:
        if option not in known:
            why = _GONE.get(str(option), f"known: {', '.join(known)}")
            raise ValueError(f"unknown option {option!r}: {why}")
    if "use_attention_sink" not in options:
        raise ValueError('use_attention_sink is missing; give "<sink>,<window>"')
    return SinkRingConfig(**options)


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        options = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(options, dict):
        raise ValueError(f"{path} must hold a mapping of options, got {type(options).__name__}")
    return options
