"""`harness.schemes.band.routing` under the name that users import."""

from harness.schemes.band.routing import SWITCH, Router, install, routing, uninstall

__all__ = ["SWITCH", "Router", "install", "routing", "uninstall"]
