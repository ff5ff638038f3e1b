"""Caches, kernels and graph passes of this package, which the harness checks like any other."""
