"""What is run: models, schedules, and a case, which is one of each with a dtype and a batch."""

from harness.cases.case import DTYPES, Case, parse

__all__ = ["DTYPES", "Case", "parse"]
