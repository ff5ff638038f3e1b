"""`harness.schemes.static.cache` under the name that users import."""

from harness.schemes.static.cache import (
    StaticDecoder,
    StaticIO,
    StaticLayout,
    cache_specs,
    example_inputs,
    mask_specs,
    metadata,
    model_cache_lens,
    resolve_cache_len,
    resolve_cache_lens,
)

__all__ = [
    "StaticDecoder",
    "StaticIO",
    "StaticLayout",
    "cache_specs",
    "example_inputs",
    "mask_specs",
    "metadata",
    "model_cache_lens",
    "resolve_cache_len",
    "resolve_cache_lens",
]
