"""How Hypothesis draws: alike in every run of these tests, anew in every nightly one."""

from __future__ import annotations

import os
from contextlib import suppress

with suppress(ModuleNotFoundError):  # an environment with the runtimes alone draws nothing
    from hypothesis import settings

    # A slow machine is not a failure, so that no example has a deadline.
    settings.register_profile("tests", derandomize=True, deadline=None)
    settings.register_profile("nightly", derandomize=False, deadline=None, print_blob=True)
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))
