"""Runs and measures coremltools' MIL programs on machines without Core ML.

`interpreter.run` executes the program of a converted model, op by op; `liveness.peak` says how much
memory its intermediate values need.  Neither predicts the Neural Engine or Metal: an engine may
fuse, reorder and accumulate as it likes.  They do show whether the *program* that a converter or a
graph pass wrote is right, and how much memory it asks for.
"""
