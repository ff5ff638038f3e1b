"""Implementations of our own: caches, kernels and graph passes, which the harness checks too."""
