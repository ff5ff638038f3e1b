"""Hugging Face transformers: its caches under eager and SDPA attention."""
