"""Bytes of a model's KV cache in each runtime, from its geometry: without torch and weights."""
