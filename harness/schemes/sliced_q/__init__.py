"""Attention over slices of the queries, as a pass over Core ML programs and torch graphs."""
