"""Drivers of released runtimes: what llama.cpp and mlx-lm really allocate for a KV cache.

Their wheels are heavy and optional (the extra ``runtimes``): each module imports its own lazily.
"""
