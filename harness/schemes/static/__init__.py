"""A cache of fixed shapes: caches, masks and rotation tables are inputs of the graph."""
