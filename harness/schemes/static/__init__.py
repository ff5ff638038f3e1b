"""A cache of fixed shapes: ring slots, masks and positions as inputs of the graph."""
