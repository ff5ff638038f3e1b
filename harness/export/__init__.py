"""Graphs that are exported and lowered: what is exported, its live bytes, and a cache of programs.

Nothing here imports a framework other than torch; lowering and runtimes belong to the subjects.
"""
