"""The command, beside a file of subjects."""

import pytest
from subject_files import BAD


@pytest.fixture
def harness(run_harness, tmp_path):
    """Run the command in a folder with a file of subjects: (exit status, stdout, stderr)."""
    (tmp_path / "bad.py").write_text(BAD)
    return run_harness
