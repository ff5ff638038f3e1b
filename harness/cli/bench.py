"""`harness bench`: times of the schemes, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import Misuse, require_writable
from harness.results.files import write_atomically


def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="decode (a step of the sink ring against eviction and a full cache, by context), "
            "probe (what measuring memory costs), static (our static caches against ExecuTorch's), "
            "routing (masked SDPA against the routed kernel, and the kernel beside its peers). "
            "Default: all."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds that are timed.")] = 31,
    long: Annotated[
        bool, typer.Option("--long", help="routing: masked layers beyond 8k also on a CPU.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the figures to this file.")
    ] = None,
) -> None:
    """Time the schemes side by side: one minute, and ten or more with routing.

    Prints medians and ratios as JSON. probe, static and decode take a minute together on two CPUs;
    routing takes most of the time, and fewer --repeats shorten all.
    """
    from harness.bench import BENCHMARKS, LONG

    chosen = list(dict.fromkeys(names or BENCHMARKS))
    if unknown := sorted(set(chosen) - set(BENCHMARKS)):
        raise Misuse(f"no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    if long and not LONG & set(chosen):
        raise Misuse(f"--long is for {', '.join(LONG)}, which is not among {', '.join(chosen)}")
    require_writable(json_file)
    figures = {}
    for name in chosen:
        typer.echo(f"{name} …", err=True)
        more = {"long": True} if long and name in LONG else {}
        figures[name] = BENCHMARKS[name](repeats, **more)
    text = json.dumps(figures, indent=1)
    typer.echo(text)
    if json_file is not None:
        write_atomically(json_file, text + "\n")
