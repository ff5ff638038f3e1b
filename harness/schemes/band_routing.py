"""`harness.schemes.band.routing` under the name that users import."""

from harness.schemes.band.backends import KERNELS, WindowKernel
from harness.schemes.band.decisions import Decision, Decisions, Reason
from harness.schemes.band.routing import (
    SWITCH,
    AttentionFunction,
    Router,
    install,
    routing,
    uninstall,
)

__all__ = [
    "KERNELS",
    "SWITCH",
    "AttentionFunction",
    "Decision",
    "Decisions",
    "Reason",
    "Router",
    "WindowKernel",
    "install",
    "routing",
    "uninstall",
]
