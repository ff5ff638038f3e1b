"""Errors in a MIL program or in how it is run."""

from __future__ import annotations


class MilError(Exception):
    """A MIL program cannot be run or measured; the message is one line."""


class UnknownOpError(MilError):
    """The interpreter has no code for an op; the message names it."""


class DeclaredError(MilError):
    """An op's value does not have the shape or dtype that the program declares."""


class InputError(MilError):
    """The inputs or states given are not those that the program takes."""
