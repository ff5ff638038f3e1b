"""A sliding-window cache in thirty lines: ``harness check examples/my_cache.py:MyCache``."""

import torch


class MyCache:
    name = "my-cache"
    schemes = frozenset({"full", "uniform", "interleaved"})

    def new_cache(self, layer, shape):
        return _Window(layer)


class _Window:
    def __init__(self, layer):
        self.layer = layer
        self.reset()

    def reset(self):
        self.k = self.v = None
        self.length = 0  # positions seen so far

    def update(self, k, v):
        if self.k is not None and self.k.shape[:2] + self.k.shape[3:] != k.shape[:2] + k.shape[3:]:
            raise ValueError(
                f"k must be {tuple(self.k.shape)} but for its length, got {tuple(k.shape)}"
            )
        keys = k if self.k is None else torch.cat((self.k, k), dim=2)
        values = v if self.v is None else torch.cat((self.v, v), dim=2)
        if keys.shape != values.shape or keys.dtype != k.dtype or k.dim() != 4:
            raise ValueError(f"k {tuple(k.shape)} and v {tuple(v.shape)} do not fit this cache")
        start, self.length = self.length, self.length + k.shape[2]
        positions = torch.arange(self.length - keys.shape[2], self.length)
        mask = self.layer.between(torch.arange(start, self.length), positions)
        # Clones, not views: a view would keep the whole prompt's storage alive.
        start = 0 if self.layer.window is None else max(0, keys.shape[2] - self.layer.window + 1)
        self.k, self.v = keys[:, :, start:].clone(), values[:, :, start:].clone()
        return keys, values, mask

    def nbytes(self):
        return 0 if self.k is None else 2 * self.k.untyped_storage().nbytes()
