"""Drivers of released runtimes: what llama.cpp and mlx-lm really allocate for a KV cache.

Their wheels are large and optional (the extra ``runtimes``): each is imported on first use.
"""
