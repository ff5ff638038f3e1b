"""Stateful fuzzing: random histories of a cache or decoder; failures are minimised and named."""
