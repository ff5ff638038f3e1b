"""Types of what a MIL variable holds; does not import coremltools, which takes seconds."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

#: An array (rank 0 included), a list of them, or a string.
Value = Any
