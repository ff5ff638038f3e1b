"""Check: the recovered visible sets equal the law's."""

from __future__ import annotations

from harness.cases.case import Case
from harness.checks.common import distinct_layers, op_shape, require_plain
from harness.checks.drive import claim, open_decoder
from harness.checks.recover import recover_influence, recover_weights, uneven_row
from harness.contract import Decoder, DecoderSubject, Subject
from harness.law import influence
from harness.results.finding import Finding, Kind


def visibility(subject: Subject, case: Case) -> Finding:
    """Every query sees exactly the keys that the law grants, under the case's schedule.

    Single layers are probed with one-hot values, whole decoders by changing one token at a time.
    For a decoder the expected set is the boolean product of the layers' masks.
    """
    claim(subject, case)
    require_plain(case)
    if isinstance(subject, DecoderSubject):
        return _by_influence(subject, case)
    finding = Finding("visibility")
    n = case.schedule.length
    for i, layer in distinct_layers(case.model):
        shape = op_shape(case, i)
        heads = shape.n_kv_heads * 2
        weights = recover_weights(subject, layer, shape, heads, case)
        expected = layer.mask(0, n, n)
        nan = ~weights.isfinite().all(-1)  # (B, Hq, n)
        off = ((weights != 0) != expected).any(-1) | nan
        wrong = off.any(-1).nonzero()  # (row of batch, head)
        if len(wrong):
            b, h = wrong[0].tolist()
            finding.compare_sets(
                expected,
                weights[b, h] != 0,
                f"{layer}, batch row {b}, head {h}",
                nan=nan[b, h],
            )
        uneven = uneven_row(weights)
        if uneven is not None and not len(wrong):
            finding.fail(
                Kind.NOT_UNIFORM,
                f"{layer}: weights at query {uneven} are not uniform",
                uneven,
            )
    return finding


def _by_influence(subject: Subject, case: Case) -> Finding:
    finding = Finding("visibility")
    n = case.schedule.length

    def open_case(other: Case) -> Decoder:
        return open_decoder(subject, other)

    found = recover_influence(open_case, case)
    masks = found.stated or [layer.mask(0, n, n) for layer in case.model.layers]
    expected = influence(masks, case.model.kv_sources)
    finding.compare_sets(expected, found.reached, nan=found.nan)
    return finding
