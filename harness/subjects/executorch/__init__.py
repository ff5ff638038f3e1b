"""ExecuTorch: static caches and attention sinks, eager and lowered."""
