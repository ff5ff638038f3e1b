"""Check: peak bytes of prefills, decode steps and the steady state."""

from __future__ import annotations

from torch import Tensor

from harness.cases.case import Case
from harness.checks.common import distinct_layers, op_shape, require_plain
from harness.checks.drive import claim
from harness.checks.measured import Feed, attention_run, cache_run, decoder_run, feeds, require_cpu
from harness.contract import AttentionSubject, CacheSubject, Subject, optional
from harness.law import Layer
from harness.memory import exponent, measure, second_difference
from harness.memory.scaling import LENGTHS
from harness.reference import inputs
from harness.results.finding import Finding, Kind


def peak_bytes(subject: Subject, case: Case) -> Finding:
    """Exact peak and retained bytes of the schedule's steps, to be gated by the baselines.

    A step is one call of the subject.  It is charged for its result, and not for anything that
    existed when it began.  The finding's `peak_bytes` is the peak of the heaviest step;
    `retained_bytes` is what the schedule allocated and had not freed by its end.  Where layers are
    run alone, both are added up over one layer of each kind.

    Two things are checked without a baseline:

    - where every layer is bounded, the peak and the held bytes of steady decode steps do not
      change;
    - an attention operation with the class attribute ``linear_memory = True`` is linear in length
      on bounded layers: the second difference of its prefill's peaks at 1024, 2048 and 3072 is 0.

    Raises Unsupported for a subject on another device than the CPU, and
    harness.memory.ProbeError where memory cannot be measured: the check ends in an error.
    """
    claim(subject, case)
    require_plain(case)
    require_cpu(subject)
    finding = Finding("peak_bytes", bytes={"peak_bytes": 0, "retained_bytes": 0})
    notes: list[str] = []
    if isinstance(subject, AttentionSubject):
        for i, layer in distinct_layers(case.model):
            run = attention_run(subject, case, i)
            notes.append(f"{layer}: {_add(finding, feeds(run, case), run.retained_bytes)}")
            if len(case.schedule.steps) == 1 and layer.bounded:
                notes += _judge_growth(finding, subject, case, i, layer)
    elif isinstance(subject, CacheSubject):
        for i, layer in distinct_layers(case.model):
            fed = cache_run(subject, case, i)
            steps = feeds(fed, case)
            notes.append(f"{layer}: {_add(finding, steps, fed.retained_bytes)}")
            if layer.bounded:
                _judge_steady(finding, case, steps, str(layer))
    else:
        steps = feeds(decoder_run(subject, case), case)
        # Weights are not cache: only what the feeds left allocated counts.  A decoder that frees
        # what it had allocated ahead retains nothing new.
        kept = sum(feed.bytes.retained_bytes for feed in steps)
        notes.append(_add(finding, steps, max(0, kept)))
        if all(layer.bounded for layer in case.model.layers):
            _judge_steady(finding, case, steps, "decoder")
    finding.figure = float(finding.bytes["peak_bytes"])
    finding.message = "; ".join(filter(None, (finding.message, *notes)))
    return finding


def _add(finding: Finding, steps: list[Feed], retained: int) -> str:
    """Add a run's bytes to the finding; returns a summary for the message."""
    finding.bytes["peak_bytes"] += max(feed.bytes.peak_bytes for feed in steps)
    finding.bytes["retained_bytes"] += retained
    chunks = [feed for feed in steps if feed.n > 1]
    single = [feed for feed in steps if feed.n == 1]
    parts = []
    if chunks:
        top = max(chunks, key=lambda feed: feed.bytes.peak_bytes)
        parts.append(f"chunk of {top.n} {top.bytes.peak_bytes:,}")
    if single:
        parts.append(f"first decode step {single[0].bytes.peak_bytes:,}")
        parts.append(f"last {single[-1].bytes.peak_bytes:,}")
    return f"{', '.join(parts)}; {retained:,} bytes retained"


def _judge_steady(finding: Finding, case: Case, steps: list[Feed], label: str) -> None:
    """The last turn of decode steps must peak and hold the same bytes as the turn before it.

    A turn is here that of a ring of two windows: 2 * window steps.  Within one, a cache may gather
    tokens and evict them together, so turns are compared by their maxima.  Both lie past the first
    wrap.
    """
    turn = 2 * case.window
    steady = [s for s in steps if s.n == 1 and s.start >= case.model.sink + turn]
    if len(steady) < 2 * turn:
        return
    before, last = steady[-2 * turn : -turn], steady[-turn:]
    for what, of in (("peak", "peak_bytes"), ("bytes held", "held_bytes")):
        was, now = (max(getattr(s.bytes, of) for s in part) for part in (before, last))
        if was != now:
            first = next(s.start for s in last if getattr(s.bytes, of) != was)
            finding.fail(
                Kind.NOT_STEADY,
                f"{label}: decode steps are not steady past the wrap, {what} {was:,} "
                f"before position {last[0].start}, {now:,} from there on",
                first,
            )


def _judge_growth(
    finding: Finding, subject: AttentionSubject, case: Case, i: int, layer: Layer
) -> list[str]:
    """Test a claim of linear memory; returns the peaks and their exponent for the message."""
    if optional(subject, "linear_memory") is not True:
        return []
    peaks = [_prefill_peak(subject, case, i, n) for n in LENGTHS]
    excess = second_difference(*peaks)
    if excess:
        finding.fail(
            Kind.NOT_LINEAR,
            f"{layer}: claims linear memory, but the second difference of its peaks at "
            f"{', '.join(map(str, LENGTHS))} is {excess:,} bytes",
        )
    return [f"peaks {', '.join(f'{p:,}' for p in peaks)}, exponent {exponent(LENGTHS, peaks):.3f}"]


def _prefill_peak(subject: AttentionSubject, case: Case, i: int, n: int) -> int:
    shape, layer = op_shape(case, i), case.model.layers[i]
    x = inputs.random(case, n, 2 * shape.n_kv_heads, shape.n_kv_heads).to(shape.dtype)

    def prefill() -> Tensor:
        return subject.attend(x.q, x.k, x.v, layer)

    return measure(prefill).peak_bytes
