"""Graphs that are exported and lowered: what is exported, its live bytes, and a cache of programs.

Nothing in here imports a framework but torch; lowering and runtimes belong to the subjects.
"""
