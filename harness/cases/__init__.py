"""Models, schedules, and cases: a case is one of each, with a dtype and a batch size."""

from harness.cases.case import DTYPES, Case, parse

__all__ = ["DTYPES", "Case", "parse"]
