"""The generated parts of the documentation: a module for each source they are read from."""

import sys
from pathlib import Path

# The package that the pages describe is the one in this checkout, installed or not.
_ROOT = str(Path(__file__).parents[2])
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)
