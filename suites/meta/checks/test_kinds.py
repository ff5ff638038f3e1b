"""The closed list of kinds: every failure has one, and none of them is dead."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
import torch
from kind_cases import CHUNKS, PREFILL, Nan
from planted import ATTENTION, cache, decoder
from torch import Tensor

from harness.cases.case import parse
from harness.checks import run_check
from harness.law import Layer
from harness.reference.cache_decoder import CacheDecoder
from harness.results.finding import Finding, Kind

HARNESS = Path(__file__).parents[3] / "harness"


# --- NaN is reported as NaN wherever an answer is compared.


class NanGradient(ATTENTION):
    """Right forward; its gradients are NaN."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, layer: Layer) -> Tensor:
        out = super().attend(q, k, v, layer)
        if out.requires_grad:
            out.register_hook(lambda gradient: gradient * torch.nan)
        return out


class NanLogits(CacheDecoder):
    """Overflows from position 9 on."""

    def feed(self, tokens: Tensor) -> Tensor:
        start, logits = self.length, super().feed(tokens)
        late = torch.arange(start, self.length) >= 9
        return torch.where(late[None, :, None], torch.inf, logits)


@pytest.mark.parametrize(
    ("subject", "check", "case", "first_bad"),
    [
        (cache(Nan), "values", CHUNKS, 8),
        (decoder(NanLogits), "values", CHUNKS, 9),
        (NanGradient, "gradients", PREFILL, 0),
    ],
    ids=str,
)
def test_nan_and_infinity_are_no_wrong_values(
    subject: type[Any], check: str, case: str, first_bad: int
) -> None:
    finding = run_check(subject, check, parse(case))
    assert (finding.kind, finding.first_bad) == (Kind.NOT_A_NUMBER, first_bad)
    assert finding.figure == torch.inf
    assert "is NaN or infinite" in finding.message


# --- The list itself.


def test_kinds_are_slugs_with_a_sentence_each() -> None:
    for kind in Kind:
        assert kind.value == kind.name.lower().replace("_", "-")
        assert kind.description.endswith(".")
        assert kind.description[0].isupper()
    assert len({kind.description for kind in Kind}) == len(Kind)


def test_the_first_kind_stays_in_front() -> None:
    finding = Finding("values").fail(Kind.BLIND, "a", 7).fail(Kind.WRONG_VALUES, "b", 3)
    assert (finding.kind, finding.message, finding.first_bad) == (Kind.BLIND, "a; b", 3)


@pytest.mark.parametrize("kind", ["logits: 3 rows off", "wrong_values", "", None])
def test_what_is_no_kind_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match="is not a valid Kind"):
        Finding("values").fail(kind, "a message")


#: First arguments that are computed, as written in the code; mypy checks that they are a `Kind`.
COMPUTED = {"kind", "problem.kind"}


def _is_kind(node: ast.expr) -> bool:
    if isinstance(node, ast.IfExp):
        return _is_kind(node.body) and _is_kind(node.orelse)
    text = ast.unparse(node)
    return text in COMPUTED or text in {f"Kind.{kind.name}" for kind in Kind}


def _fail_calls() -> list[tuple[str, ast.Call]]:
    return [
        (f"{path.relative_to(HARNESS)}:{node.lineno}", node)
        for path in sorted(HARNESS.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "fail"
        and ast.unparse(node.func.value) != "pytest"
    ]


def test_every_failure_names_its_kind() -> None:
    calls = _fail_calls()
    assert len(calls) > 25
    unnamed = [where for where, call in calls if not (call.args and _is_kind(call.args[0]))]
    assert not unnamed


def test_every_kind_is_named_somewhere() -> None:
    """A kind that no code uses is dead."""
    named = {
        node.attr
        for path in HARNESS.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Kind"
    }
    assert named == {kind.name for kind in Kind}
