"""Exact memory of a call, in bytes of torch's allocators, and figures that are merely indicative.

`measure` is what gates: integers that repeat to the byte.  `secondary` (resident memory, memray)
and `peak_resident_bytes` are for reading only.  What the numbers hold and what they cannot is said
in `probe`.
"""

from harness.memory.canary import check_probe
from harness.memory.events import ProbeError, Step, step
from harness.memory.probe import Measurement, measure
from harness.memory.scaling import exponent, second_difference
from harness.memory.secondary import Secondary, peak_resident_bytes, secondary

__all__ = [
    "Measurement",
    "ProbeError",
    "Secondary",
    "Step",
    "check_probe",
    "exponent",
    "measure",
    "peak_resident_bytes",
    "second_difference",
    "secondary",
    "step",
]
