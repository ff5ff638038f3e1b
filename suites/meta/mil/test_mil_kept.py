"""A converted model is made once, answers as the one it was made from, and is known by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.mil.conversion import convert, input_names
from harness.mil.interpreter import program_of, run
from harness.mil.kept import kept

pytestmark = pytest.mark.needs("coremltools")


class Scaled(torch.nn.Module):
    """x times a matrix, which is large enough to be saved as a weight, plus y."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = torch.nn.Parameter(by * torch.eye(SIZE), requires_grad=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x @ self.by + y


SIZE = 16
ZEROS = torch.zeros(2, SIZE)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    return tmp_path


def test_a_model_is_converted_once_and_answers_alike(cache: Path) -> None:
    made = []

    def make() -> object:
        made.append(convert(Scaled(3.0), (ZEROS, ZEROS)))
        return made[-1]

    given = [kept("scaled", ["harness.mil.conversion"], {"by": 3.0}, make) for _ in range(2)]
    assert len(made) == 1
    assert len(list(cache.glob("mil-scaled-*.program"))) == 1
    x = np.arange(2 * SIZE, dtype=np.float32).reshape(2, SIZE)
    want = run(program_of(made[0]), dict(zip(input_names(made[0]), (x, x), strict=True)))
    for one in given:
        assert one.inputs == tuple(input_names(made[0]))
        got = run(one.program, dict(zip(one.inputs, (x, x), strict=True)))
        assert [v.tolist() for v in got.values()] == [v.tolist() for v in want.values()]
        assert next(iter(got.values())).tolist() == (x * 3 + x).tolist()


def test_another_value_is_another_model(cache: Path) -> None:
    for by in (2.0, 5.0):
        made = kept(
            "scaled",
            ["harness.mil.conversion"],
            {"by": by},
            lambda by=by: convert(Scaled(by), (ZEROS, ZEROS)),
        )
        one = np.ones((2, SIZE), dtype=np.float32)
        (got,) = run(made.program, dict.fromkeys(made.inputs, one)).values()
        assert got.tolist() == np.full((2, SIZE), by + 1).tolist()
    assert len(list(cache.glob("mil-scaled-*.program"))) == 2
