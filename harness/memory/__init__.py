"""Exact memory of a call, from torch's allocators, and figures that are only indicative.

The gate uses `measure`, whose integers repeat to the byte.  `secondary` (resident memory, memray)
and `peak_resident_bytes` are for reading only.  `probe` says what the numbers include and what
they do not.
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
