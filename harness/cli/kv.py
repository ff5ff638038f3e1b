"""`harness kv`: bytes of a model's KV cache, per runtime.  Imports neither torch nor pandas."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from harness.cli.common import Misuse, console


def kv(
    model: Annotated[str, typer.Argument(help="A model's name, a config.json or a .gguf file.")],
    context: Annotated[int, typer.Option(help="Context length in tokens.")],
    runtime: Annotated[list[str], typer.Option(help="Only this runtime (repeatable).")] = [],  # noqa: B006 - typer copies it
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Also show each kind of layer.")] = False,
    peers: Annotated[bool, typer.Option("--peers", help="Also show other estimators.")] = False,
    sequences: Annotated[int, typer.Option(help="Sequences in the cache at once.")] = 1,
    prompt: Annotated[
        int | None, typer.Option(help="Prompt length in tokens. Default: the context.")
    ] = None,
    phase: Annotated[str, typer.Option(help="peak, prefill, first_decode or steady.")] = "steady",
    k_type: Annotated[str, typer.Option(help="How keys are stored: f16, q8_0, …")] = "f16",
    v_type: Annotated[str, typer.Option(help="How values are stored.")] = "f16",
    option: Annotated[
        list[str],
        typer.Option("--set", help="An option of a runtime: n_ubatch=2048"),
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Bytes of a model's KV cache, for each runtime."""
    from harness.estimate import options, show, table
    from harness.estimate.geometry import GeometryError
    from harness.estimate.profiles import Request, RequestError
    from harness.estimate.resolve import resolve

    try:
        request = Request(context, sequences, prompt, phase, k_type, v_type)
        geometry = resolve(model)
        profiles = options.chosen(geometry, runtime, option)
    except (GeometryError, RequestError) as error:
        raise Misuse(str(error)) from error
    rows = [table.row(profile, geometry, request) for profile in profiles]
    if peers:
        rows += table.peer_rows(geometry, request)
    if as_json:
        typer.echo(json.dumps(show.to_json(geometry, request, rows), indent=1))
    else:
        show.show(console(), geometry, request, rows, layers=layers)
