"""A run of a project's suites, of a few items."""

from functools import partial

import pytest
from plugin_runs import SELECTED


@pytest.fixture
def run(run_suites):
    """Run the suite on one subject."""
    return partial(run_suites, select=SELECTED)
