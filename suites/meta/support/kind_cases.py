"""Cases of each kind of step, and a cache whose answers are NaN."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.defects.base import Trimmed

CHUNKS = "mistral/chunk-4/float32/b1"
BATCH = "mistral/chunk-4/float32/b3"
DECODE = "mistral/decode-3wraps/float32/b1"
PREFILL = "mistral/prefill-3w+5/float32/b1"
BYTES = "mistral/bytes-prefill-50w/float32/b1"
HALF = "mistral/bytes-prefill-50w/float16/b1"
REWIND = "mistral/rewind-3-of-long/float32/b1"
RESET = "mistral/reset-then-chunks/float32/b1"


class Nan(Trimmed):
    """Every value is NaN once the window is full."""

    def update(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        keys, values, mask = super().update(k, v)
        return keys, values * torch.nan if self.length > 8 else values, mask
