"""PyTorch's attention operations, and flash-attn."""
