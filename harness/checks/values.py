"""Check: each row against the float64 oracle."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.bounds import reference_for
from harness.checks.common import distinct_layers, is_coarse, op_shape, require_plain, stored_dtype
from harness.checks.drive import claim, open_decoder, open_op, run_decoder, run_op, tokens_for
from harness.checks.op_reference import op_reference
from harness.contract import AttentionSubject, DecoderSubject, Subject
from harness.law import Layer
from harness.reference import inputs, oracle, tolerance
from harness.reference.inputs import OP_HEAD_DIM, Inputs
from harness.results.finding import Finding, Kind

#: Query heads per key head, and head_dim, of single layers.
_USUAL = (2, OP_HEAD_DIM)
#: Other geometries for kernels: no groups, groups of three, of eight; widths around their tiles.
_OTHERS = ((1, 128), (3, 80), (8, 256))


#: Gives (name, row errors (n,)) of each neighbouring law.
Wrong = Callable[[], Iterable[tuple[str, Tensor]]]


def values(subject: Subject, case: Case) -> Finding:
    """Every row of the schedule is within the bound of the float64 oracle.

    Decoders are compared by logits, attention operations by single layers with random and edge
    inputs, and caches by both (in half precision by single layers alone).  Operations also run
    single prefills in other geometries.  The check fails as blind if the bound cannot tell a
    neighbouring law from the right one.
    """
    claim(subject, case)
    require_plain(case)
    finding = Finding("values")
    is_decoder, is_operation = (isinstance(subject, p) for p in (DecoderSubject, AttentionSubject))
    half = case.dtype in ("float16", "bfloat16") or is_coarse(subject)
    if is_decoder or not (is_operation or half):
        decoder_values(finding, subject, case)
    if not is_decoder:
        for i, layer in distinct_layers(case.model):
            _op_values(finding, subject, case, i, layer, _USUAL)
    if is_operation and len(case.schedule.steps) == 1 and not half:
        for i, layer in distinct_layers(case.model):
            for geometry in _OTHERS:
                _op_values(finding, subject, case, i, layer, geometry)
    return finding


def judge(
    finding: Finding,
    got: Tensor,
    exact: Tensor,
    bound: Tensor,
    margin: float | None,
    what: str,
    wrong: Wrong = tuple,
) -> None:
    """Fail for rows of `got` (…, n, F) beyond their bounds (n,), and for too small a margin.

    Of several calls, the finding keeps the figures of the worst.  wrong: gives the errors of the
    neighbouring laws; called only if a row is off.
    """
    errors = tolerance.row_error(got, exact)
    ratios = tolerance.over(errors, bound)
    worst = int(ratios.argmax())
    bad = (~(ratios <= 1)).nonzero().flatten()
    if not finding.errors or float(ratios.max()) > max(finding.errors):
        finding.figure, finding.bound = float(errors[worst]), float(bound[worst])
        finding.errors = [float(f"{r:.4g}") for r in ratios.tolist()]
        finding.neighbours = tolerance.curves(wrong(), bound) if len(bad) else {}
    if len(bad):
        first = int(bad[0])
        finite = bool(errors.isfinite().all())
        finding.fail(
            Kind.WRONG_VALUES if finite else Kind.NOT_A_NUMBER,
            f"{what}: {len(bad)} of {len(errors)} rows off, first {first} "
            f"{_by(errors[first], bound[first])}, worst {worst} {_by(errors[worst], bound[worst])}",
            first,
        )
    if margin is None:
        return
    finding.margin = margin if finding.margin is None else min(margin, finding.margin)
    if margin < tolerance.SEPARATION:
        finding.fail(
            Kind.BLIND,
            f"blind: {what}: the nearest wrong law is {margin:.3g} bounds away, "
            f"{tolerance.SEPARATION:g} are needed",
        )


def _by(error: Tensor, bound: Tensor) -> str:
    """How far off a row is."""
    if not error.isfinite():
        return "is NaN or infinite"
    return f"by {float(error):.3g} (bound {float(bound):.3g})"


def decoder_values(finding: Finding, subject: Subject, case: Case) -> None:
    """Compare the logits of the positions held at the end of the schedule with the oracle."""
    decoder = open_decoder(subject, case)
    run = run_decoder(decoder, tokens_for(case), case.schedule)
    reference = reference_for(subject, decoder, case, run.tokens)
    judge(
        finding,
        run.logits,
        reference.exact,
        reference.bound,
        None if is_coarse(subject) else reference.margin,
        "logits",
        lambda: reference.wrong,
    )
    if reference.doubt:
        finding.fail(Kind.DENSE_WRONG, reference.doubt)


def _op_values(
    finding: Finding, subject: Subject, case: Case, i: int, layer: Layer, geometry: tuple[int, int]
) -> None:
    groups, width = geometry
    shape, n = replace(op_shape(case, i), head_dim=width), case.schedule.length
    heads = groups * shape.n_kv_heads
    mask = layer.mask(0, n, n)
    what = f"{layer}" if geometry == _USUAL else f"{layer}, groups of {groups}, head_dim {width}"
    made = [
        inputs.random(case, n, heads, shape.n_kv_heads, width),
        inputs.edge(case, layer, n, heads, shape.n_kv_heads, width),
    ]
    # A cache leaves the scores to the harness; half precision has no such scores.
    if isinstance(subject, AttentionSubject) and shape.dtype == torch.float32:
        made.append(inputs.far(case, layer, n, heads, shape.n_kv_heads, width))
    for x in (inputs_.to(shape.dtype) for inputs_ in made):
        got = run_op(open_op(subject, layer, shape), x, case.schedule)
        reference = op_reference(x.q, x.k, x.v, mask, stored_dtype(subject))
        exact, bound = reference.exact, reference.bound
        margin = None
        if x.label == inputs.EDGE:
            # In half precision random inputs cannot show one far key; edge inputs can, and must.
            margin = tolerance.nearest((errors for _, errors in _wrong(x, layer, exact)), bound)
        elif x.label == inputs.FAR:
            assert reference.magnitude is not None
            bound = bound + tolerance.exponent_bound(inputs.FAR_SCORE, reference.magnitude)
            margin = _finite_mask_margin(x, mask, exact, bound)
        wrong = partial(_wrong, x, layer, exact)
        judge(finding, got, exact, bound, margin, f"{what}, {x.label}", wrong)


#: What some kernels write for masked scores in place of minus infinity.
_FINITE = -1e4


def _finite_mask_margin(x: Inputs, mask: Tensor, exact: Tensor, bound: Tensor) -> float | None:
    """How many bounds away an operation is whose masked scores are finite; None without any."""
    if mask.all():
        return None
    x64 = x.to(torch.float64)
    finite = oracle.attention(x64.q, x64.k, x64.v, mask, masked=_FINITE)
    return tolerance.nearest([tolerance.row_error(finite, exact)], bound)


def _wrong(x: Inputs, layer: Layer, exact: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Row errors of the neighbouring laws on these inputs."""
    n = exact.shape[-2]
    for near in tolerance.neighbours(layer, n):
        other = oracle.attention64(x.q, x.k, x.v, near.mask(0, n, n))
        yield tolerance.difference([layer], [near]), tolerance.row_error(other, exact)
