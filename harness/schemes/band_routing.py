"""`harness.schemes.band.routing` under the name that users import."""

from harness.schemes.band.routing import *  # noqa: F403
