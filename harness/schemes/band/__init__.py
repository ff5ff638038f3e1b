"""Attention in a band: the windowed kernel, and the router that sends sliding layers to it."""
