"""Check: bad input is refused and leaves the state as it was, or it is answered rightly.

What "rightly" means for bad input is settled by torch itself: where a shape broadcasts to the one
that was announced, and a dtype promotes to it, the input stands for that tensor, and a body that
takes it must answer as if it had been handed that tensor.  Input that stands for nothing must be
refused.

A body that refuses everything would pass such a check.  So every case also makes the good calls,
before and after, and holds their answers to the oracle.
"""

from __future__ import annotations

from collections.abc import Sequence

from harness.cases.case import Case
from harness.checks.common import distinct_layers
from harness.checks.drive import claim
from harness.checks.refusal.attempts import Body, attempts
from harness.checks.refusal.beyond import cache_beyond, decoder_beyond
from harness.checks.refusal.cache import CacheBody
from harness.checks.refusal.decoder import DecoderBody
from harness.checks.refusal.lengths import HoldingBody, bad_lengths
from harness.checks.refusal.operation import OperationBody
from harness.contract import AttentionSubject, CacheSubject, Subject
from harness.results.finding import Finding, Status


def refusal(subject: Subject, case: Case) -> Finding:
    """Wrong rank, dtype, batch, heads, width or token ids are refused, or answered rightly.

    Good calls before and after are answered, and rightly.  A chunk longer than announced, or one
    past max_context, may be refused or answered rightly; never wrongly.  So may a rewind to a
    length that is not held.
    """
    claim(subject, case)
    finding = Finding("refusal")
    bodies: Sequence[Body]
    holding: Sequence[HoldingBody] = ()  # what a rewind can be asked of
    if isinstance(subject, CacheSubject):
        kind = "cache"
        layers = distinct_layers(case.model)
        caches = [CacheBody(subject, case, i, layer) for i, layer in layers]
        bodies, holding = caches, caches
    elif isinstance(subject, AttentionSubject):
        kind = "attention"
        layers = distinct_layers(case.model)
        bodies = [OperationBody(subject, case, i, layer) for i, layer in layers]
    else:
        kind = "decoder"
        decoders = [DecoderBody(subject, case)]
        bodies, holding = decoders, decoders
    taken = [what for body in bodies for what in attempts(finding, body)]
    for body in holding:
        bad_lengths(finding, body)
    if isinstance(subject, CacheSubject):
        for i, layer in distinct_layers(case.model):
            cache_beyond(finding, subject, case, i, layer)
    elif not isinstance(subject, AttentionSubject):
        decoder_beyond(finding, subject, case)
    if finding.status is Status.PASS:
        answered = ", ".join(dict.fromkeys(taken))
        finding.message = f"{kind}: every bad input was refused" + (
            f", or answered rightly: {answered}" if answered else ""
        )
    return finding
