"""Check: the exported program gives the eager outputs; its bytes are recorded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from harness.cases.case import Case
from harness.checks.bounds import reference_for
from harness.checks.common import require_plain
from harness.checks.drive import Run, claim, open_decoder, run_decoder, tokens_for
from harness.checks.values import judge
from harness.contract import Decoder, Subject, Unsupported, optional
from harness.export import liveness
from harness.export.exportable import Exportable, by_shape
from harness.results.finding import Finding

LIVE_BYTES = "live_bytes"


def export(subject: Subject, case: Case) -> Finding:
    """Every row of an exported run is within the bound of the eager run of the same graph.

    The graph is the subject's ``exportable(case)``; its module gives the eager run.  Compared
    with that are

    - one program per shape, all working on the same state: `torch.export` with static shapes;
    - one program for all lengths, where the graph offers it;
    - the subject itself, which runs this graph: for a lowered subject, the runtime's program.

    A lowered subject's graph is not exported again: what is recorded are the integers of its
    ``program_bytes(case)``.  For the others it is `live_bytes`, the largest peak of a static
    program by the liveness of its graph.
    """
    claim(subject, case)
    require_plain(case)
    make: Callable[[Case], Exportable] | None = optional(subject, "exportable")
    if make is None:
        raise Unsupported("offers no graph to export")
    finding = Finding("export")
    decoders: list[tuple[str, Decoder]] = []
    program_bytes = optional(subject, "program_bytes")
    if program_bytes is None:
        decoders += _exported(finding, make(case))
    else:
        finding.bytes.update(program_bytes(case))
    what, own = make(case), open_decoder(subject, case)  # exporting has not touched this one
    tokens = tokens_for(case)
    eager = _run(what.drive(what.module), tokens, case)
    reference = reference_for(subject, own, case, eager.tokens)
    for name, decoder in (("the subject's own run", own), *decoders):
        got = _run(decoder, tokens, case)
        judge(
            finding,
            got.logits,
            eager.logits,
            reference.bound,
            reference.margin,
            name,
            lambda: reference.wrong,
        )
    return finding


@torch.no_grad()
def _run(decoder: Decoder, tokens: Tensor, case: Case) -> Run:
    return run_decoder(decoder, tokens, case.schedule)


def _exported(finding: Finding, what: Exportable) -> Iterator[tuple[str, Decoder]]:
    """Decoders around the exported programs.  Records the live bytes of the static ones."""
    if what.methods:
        static = what.export_static()
        finding.bytes[LIVE_BYTES] = max(liveness.peak_bytes(p) for p in static.values())
        yield f"static programs {', '.join(static)}", what.drive(by_shape(what, static))
    if what.dynamic is not None:
        program: Callable[..., Any] = what.export_dynamic().module()
        yield "dynamic program", what.drive(program)
