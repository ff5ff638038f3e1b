"""Check: gradients of attention operations against the float64 oracle."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.common import distinct_layers, on_device, op_shape
from harness.checks.drive import claim
from harness.checks.values import judge
from harness.contract import AttentionSubject, Subject, Unsupported
from harness.law import Layer
from harness.reference import inputs, oracle, tolerance
from harness.reference.inputs import OP_HEAD_DIM, Inputs
from harness.results.finding import Finding


def gradients(subject: Subject, case: Case) -> Finding:
    """dq, dk and dv of an attention operation, each row within the bound of the float64 oracle.

    They are checked for one prefill, and for its last third as queries over all keys (Sq < Sk), as
    in a cached training step.
    """
    claim(subject, case)
    if not isinstance(subject, AttentionSubject):
        raise Unsupported("gradients are checked on attention operations")
    if len(case.schedule.steps) != 1:
        raise Unsupported("gradients are checked on one prefill")
    finding = Finding("gradients")
    n = case.schedule.length
    for i, layer in distinct_layers(case.model):
        for first in sorted({0, n - n // 3} - {n}):
            _judge_layer(finding, subject, case, i, layer, first)
    return finding


def _judge_layer(
    finding: Finding, subject: AttentionSubject, case: Case, i: int, layer: Layer, first: int
) -> None:
    """Judge the queries from position `first` on, over all keys."""
    shape, n = op_shape(case, i), case.schedule.length
    heads = 2 * shape.n_kv_heads
    x = inputs.random(case, n, heads, shape.n_kv_heads).to(shape.dtype)
    grad = inputs.edge(case, layer, n, heads, shape.n_kv_heads).q.to(shape.dtype)[:, :, first:]
    mask, (q, k, v), exact_inputs = layer.mask(0, n, n)[first:], _of(x, first), _of64(x, first)
    leaves = [t.clone().requires_grad_(True) for t in on_device(subject, q, k, v)]
    out = subject.attend(leaves[0], leaves[1], leaves[2], layer)
    got = _gradients(out, leaves, grad)
    own = oracle.attention_gradients(q, k, v, mask, grad)
    exact = oracle.attention_gradients(*exact_inputs, mask, grad.double())
    summed = oracle.gradient_magnitudes(*exact_inputs, mask, grad)
    near = list(tolerance.neighbours(layer, n))
    names = [tolerance.difference([layer], [other]) for other in near]
    wrong = [
        oracle.attention_gradients(*exact_inputs, other.mask(0, n, n)[first:], grad.double())
        for other in near
    ]
    # A key's gradient sums over the queries that see it, a query's over the keys it sees.
    terms = (mask.sum(-1), mask.sum(0), mask.sum(0))
    where = f"{layer}, queries from {first}" if first else f"{layer}"
    for j, name in enumerate(("dq", "dk", "dv")):
        bound = tolerance.row_bound(own[j], exact[j], terms[j], OP_HEAD_DIM, 1, summed[j])
        errors = [tolerance.row_error(w[j], exact[j]) for w in wrong]
        margin = tolerance.nearest(errors, bound)
        named = partial(zip, names, errors, strict=True)
        judge(finding, got[j], exact[j], bound, margin, f"{where}, {name}", named)


def _gradients(out: Tensor, leaves: list[Tensor], grad: Tensor) -> list[Tensor]:
    """dq, dk, dv; zeros for an input to which no gradient flows."""
    if not out.requires_grad:
        return [torch.zeros_like(t, device="cpu") for t in leaves]
    found = torch.autograd.grad(out, leaves, grad.to(out.device), allow_unused=True)
    pairs = zip(leaves, found, strict=True)
    return [(torch.zeros_like(t) if g is None else g).cpu() for t, g in pairs]


def _of(x: Inputs, first: int) -> tuple[Tensor, Tensor, Tensor]:
    return x.q[:, :, first:], x.k, x.v


def _of64(x: Inputs, first: int) -> tuple[Tensor, Tensor, Tensor]:
    return _of(x.to(torch.float64), first)
