"""The HTML report of two thousand cases is made quickly, and stays small."""

import re
import time

import pytest
from gate_data import record
from report_pages import reproducible

from harness.cases.models import TINY
from harness.gate.baselines import Baselines
from harness.gate.verdict import judge
from harness.law import Layer
from harness.report import html
from harness.results.finding import Finding, Kind
from harness.results.folder import RunInfo
from harness.results.record import finish, rows, to_frame


def two_thousand(outcome):
    """2,000 records; outcome(i) gives the findings."""
    models, checks = list(TINY), ("visibility", "values", "reset", "purity", "cache_bytes")
    out = []
    for i in range(2000):
        model, check = models[i // 60 % len(models)], checks[i % len(checks)]
        case = f"{model}/prefill-by-5-then-decode-{i}/float32/b1"
        made = record(
            item=str(i),
            subject=f"executorch.static.{i // 5 % 12}",
            check=check,
            case=case,
            model=model,
            scheme=TINY[model].scheme,
            reproduce=f"harness check s --case {case} --check {check}",
        )
        out.append(finish(made, outcome(i, check), 0.1))
    return out


def mixed(i, check):
    """One in ten fails, each in a different way."""
    finding = Finding(check, figure=1.23e-6, bound=2.34e-5, margin=123.4)
    if i % 10:
        return finding
    finding.errors = [1e-3 * ((i * p) % 97) ** 2 for p in range(51)]
    finding.neighbours = {
        f"window {n}": [0.0] * n + [1e3 * (1 + (i + p * n) % 89) for p in range(51 - n)]
        for n in (6, 7, 9, 10)
    }
    shift = Layer(window=4 + i // 10 % 9)
    finding.fail(list(Kind)[i // 10 % 10], f"rows off, first {i}", i)
    finding.compare_sets(Layer(window=8).mask(0, 40, 40), shift.mask(0, 40, 40))
    return finding


def all_fail(i, check):
    return mixed(10 * i, check)


@pytest.mark.parametrize("outcome", [mixed, all_fail])
def test_two_thousand_cases_are_quick_and_small(outcome, tmp_path):
    frame = to_frame(two_thousand(outcome))
    verdict = judge(frame, Baselines(), [], RunInfo(run="r1", exit_status=1))
    html.build(to_frame([]), judge(to_frame([]), Baselines(), [], RunInfo(run="r")), tmp_path)
    some = to_frame(two_thousand(outcome)[::4])
    few = judge(some, Baselines(), [], RunInfo(run="r1", exit_status=1))
    times = [time.process_time()]
    for built in ((some, few), (frame, verdict)):
        out = html.build(*built, tmp_path)
        times.append(time.process_time())
    # Four times the cases: time may at most double beyond proportion, on a machine of any speed.
    assert times[2] - times[1] < 2 * 4 * (times[1] - times[0])
    assert out.stat().st_size < 1_000_000
    text = re.sub("</?span>", "", out.read_text(encoding="utf-8"))
    assert all(reproducible(row, text) for row in rows(verdict.broken))
