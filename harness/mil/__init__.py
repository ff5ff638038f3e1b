"""MIL programs of coremltools run and measured where there is no Core ML.

`interpreter.run` executes the program of a converted model, op by op; `liveness.peak` says what
memory its intermediate values need.  Neither speaks of the Neural Engine or of Metal: an engine
may fuse, reorder and accumulate as it likes.  What they do tell is whether the *program* that a
converter or a graph pass wrote is right, and what it asks for.
"""
