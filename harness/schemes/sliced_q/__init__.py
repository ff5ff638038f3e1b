"""Attention over slices of the queries: a pass over Core ML programs, and a torch operation."""
