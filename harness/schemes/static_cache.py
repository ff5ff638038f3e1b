"""`harness.schemes.static.cache` under the name that users import."""

from harness.schemes.static.cache import *  # noqa: F403
