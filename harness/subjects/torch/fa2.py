"""Flash attention 2 with a window on CUDA: torch's own, and the flash-attn package's."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.contract import Unsupported
from harness.law import Layer
from harness.results.finding import NAMES
from harness.schemes.band.backends import FlashAttn, TorchFlash, WindowKernel
from harness.subjects.own.banded import window_of


class TorchFa2:
    """`torch.ops.aten._flash_attention_forward` with window sizes.

    Inputs are copied to the CUDA device and the output back; gradients flow through both.
    """

    name = "torch.fa2"
    suite = "fa2_routing"
    schemes = frozenset({"uniform"})
    kernel: WindowKernel = TorchFlash()
    checks = frozenset(NAMES) - {"peak_bytes"}  # their memory is the GPU's

    @staticmethod
    def covers(check: str, case: Case) -> bool:  # noqa: ARG004 - the contract's signature
        """Half precision only: these kernels have no other."""
        return case.dtype in ("float16", "bfloat16")

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        """Raises Unsupported without a CUDA device, and for what the kernel refuses."""
        window = window_of(layer)
        if not torch.cuda.is_available():
            raise Unsupported("needs CUDA")
        qc, kc, vc = (x.cuda() for x in (q, k, v))
        why = self.kernel.refuses(qc, kc, vc)
        if why:
            raise Unsupported(why)
        return self.kernel(qc, kc, vc, window, q.shape[-1] ** -0.5).to(q.device)


class PackageFa2(TorchFa2):
    """Flash attention 2 with a window, from the flash-attn package."""

    name = "flash_attn"
    package = "flash-attn"
    kernel: WindowKernel = FlashAttn()
