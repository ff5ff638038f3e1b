"""What can be wrong with a MIL program or with how it is run."""

from __future__ import annotations


class MilError(Exception):
    """A MIL program cannot be run or measured; the message is one line."""


class UnknownOpError(MilError):
    """The interpreter has no code for an op; the message names it."""


class DeclaredError(MilError):
    """An op's value has another shape or dtype than the program declares."""


class InputError(MilError):
    """The inputs or states given are not those of the program."""
