"""Convert between PyTorch's tensors and MLX's arrays."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def to_mlx(tensor: Tensor) -> Any:
    """A copy of the tensor as an MLX array of the same dtype."""
    import mlx.core as mx

    if tensor.dtype == torch.bfloat16:  # it goes through NumPy, which has none
        return mx.array(tensor.float().numpy()).astype(mx.bfloat16)
    return mx.array(tensor.numpy())


def to_torch(array: Any) -> Tensor:
    """A copy of the array as a tensor of the same dtype; evaluates it."""
    import mlx.core as mx
    import numpy as np

    if array.dtype == mx.bfloat16:
        return torch.from_numpy(np.array(array.astype(mx.float32))).bfloat16()
    return torch.from_numpy(np.array(array))
