"""`harness kv`: bytes of a model's KV cache, per runtime.  Imports neither torch nor pandas."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import BROKEN, Misuse, console
from harness.results.text import escaped

if TYPE_CHECKING:
    from harness.estimate.geometry import Geometry
    from harness.estimate.profiles import Request
    from harness.estimate.table import Row

_SUFFIXES = {"": 1, "k": 1 << 10, "m": 1 << 20}
#: No number that is allowed is longer, and Python refuses to read one of thousands of digits.
_NUMBER = re.compile(r"([+-]?[0-9]{1,18})([kKmM]?)")


def kv(
    model: Annotated[
        list[str],
        typer.Argument(
            help="A model's name, a config.json or its folder, or a .gguf file; each gets a table.",
        ),
    ],
    context: Annotated[
        str,
        typer.Option(
            metavar="TOKENS",
            help="Context length: tokens of prompt and answer. 128k is 131072, 1M is 1048576.",
        ),
    ],
    runtime: Annotated[
        list[str],
        typer.Option(
            help="Only this runtime (repeatable).",
        ),
    ] = [],  # noqa: B006 - typer copies it
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="JSON on standard output: an object, or a list of them for several models.",
        ),
    ] = False,
    layers: Annotated[bool, typer.Option("--layers", help="Also show each kind of layer.")] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers", help="Also show other estimators, each with its error against llama.cpp."
        ),
    ] = False,
    sequences: Annotated[
        str, typer.Option(metavar="N", help="Sequences (requests) in the cache at once.")
    ] = "1",
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TOKENS",
            help="Prompt length; the rest of the context is decoded. Default: all.",
        ),
    ] = None,
    phase: Annotated[
        str,
        typer.Option(
            help="When the cache is measured: peak (the most while the prompt is fed), prefill "
            "(after the prompt), first_decode (after the next token) or steady (at the whole "
            "context)."
        ),
    ] = "steady",
    k_type: Annotated[
        str,
        typer.Option(
            help="How keys are stored: f32, f16, bf16, fp8; ggml's q8_0, q5_1, q5_0, q4_1, q4_0, "
            "iq4_nl; MLX's mlx_q8, mlx_q4."
        ),
    ] = "f16",
    v_type: Annotated[str, typer.Option(help="How values are stored, likewise.")] = "f16",
    option: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An option of a runtime (repeatable), such as n_ubatch=2048. llama.cpp: n_batch, "
            "n_ubatch, swa_full, unified, flash_attention; mlx-lm: prefill_step; vllm: block, "
            "batched; executorch.sink: sink, window; executorch.static and harness.static: "
            "input_len; harness.ring: chunk; heuristic: billions, active.",
        ),
    ] = [],  # noqa: B006 - typer copies it
) -> None:
    """Bytes of a model's KV cache, for each runtime.

    The column "window" says whether a runtime drops the keys that have left the model's windows:
    yes, no, unknown (nobody has checked; counted as no), or - for a model without windows. The
    column "error" is there for estimators: relative to the bytes that llama.cpp allocates.

    Exit status 1: a runtime that was named with --runtime has no figure. 2: a model or an option
    cannot be read.
    """
    from harness.estimate import options, table
    from harness.estimate.geometry import GeometryError
    from harness.estimate.profiles import Request, RequestError
    from harness.estimate.resolve import resolve

    _write_in_any_locale()
    answers: list[tuple[Geometry, list[Row]]] = []
    try:
        request = Request(
            tokens("context", context),
            tokens("sequences", sequences),
            None if prompt is None else tokens("prompt", prompt),
            phase,
            k_type,
            v_type,
        )
        for target in dict.fromkeys(model):
            geometry = resolve(target)
            profiles = options.chosen(geometry, runtime, option)
            rows = [table.row(profile, geometry, request) for profile in profiles]
            if peers:
                rows += table.peer_rows(geometry, request)
            answers.append((geometry, rows))
    except (GeometryError, RequestError) as error:
        raise Misuse(escaped(str(error))) from error
    _print(answers, request, as_json=as_json, layers=layers)
    missing = [
        f"{geometry.name}: {row.name} has no figure: {row.note}"
        for geometry, rows in answers
        for row in rows
        if row.name in runtime and row.nbytes is None
    ]
    for why in missing:
        typer.echo(f"harness: {escaped(why)}", err=True)
    raise typer.Exit(BROKEN if missing else 0)


def tokens(field: str, text: str) -> int:
    """The number that an option holds: digits, with k (1024) or M (1048576) after them.

    Raises RequestError naming the field; its range is left to `Request`.
    """
    from harness.estimate.fields import quoted
    from harness.estimate.profiles import RequestError

    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        raise RequestError(
            f"{field} must be an integer such as 131072 or 128k (k is 1024, M is 1048576), "
            f"got {quoted(text)}"
        )
    return int(found[1]) * _SUFFIXES[found[2].lower()]


def _print(
    answers: Sequence[tuple[Geometry, list[Row]]], request: Request, *, as_json: bool, layers: bool
) -> None:
    from harness.estimate import show

    if as_json:
        data = [show.to_json(geometry, request, rows) for geometry, rows in answers]
        typer.echo(json.dumps(data[0] if len(data) == 1 else data, indent=1))
        return
    screen = console()
    for i, (geometry, rows) in enumerate(answers):
        if i:
            screen.print()
        show.show(screen, geometry, request, rows, layers=layers)


def _write_in_any_locale() -> None:
    """Write as an escape what the terminal's encoding has no byte for, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
