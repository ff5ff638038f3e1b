"""Bytes of KV caches from a model's geometry, per runtime; needs neither torch nor weights."""
