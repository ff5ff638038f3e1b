"""Attention sinks: a ring buffer and an evicting cache."""
