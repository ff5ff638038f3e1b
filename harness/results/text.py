"""How figures, positions and messages are written for people."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_MIB = 2**20
#: What acts on a terminal or on the order of a line, or cannot be seen: controls with ESC, line
#: separators, marks of direction, tags, halves of a surrogate pair, what is no character.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\ufffe\uffff\U000e0000-\U000e007f]"
)


def escaped(text: str, keep: str = "") -> str:
    """The text with every control, mark of direction and lone surrogate written as an escape.

    ESC becomes the four characters of "\\x1b".  A text of a subject, a file or another machine can
    then neither clear a screen nor reverse a line.  keep: characters to leave, such as "\\n".  To
    escape twice does no harm.
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else _escape(found[0]), text)


def number(value: float | None, none: str = "") -> str:
    """Whole numbers in full with commas, others to three digits; `none` for None."""
    if value is None:
        return none
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if math.isfinite(value) and value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def mebibytes(nbytes: float) -> str:
    """ "1,024 MiB": bytes in MiB, to a tenth."""
    return f"{number(round(nbytes / _MIB, 1))} MiB"


def duration(value: float | None) -> str:
    """Seconds: two decimals below 100, none from there on; "" for None."""
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def spans(positions: Iterable[int]) -> str:
    """Positions as ranges: "0–3, 9, 12–15"; "none" if there are none."""
    runs: list[list[int]] = []
    for p in sorted(set(positions)):
        if runs and p == runs[-1][1] + 1:
            runs[-1][1] = p
        else:
            runs.append([p, p])
    return ", ".join(str(a) if a == b else f"{a}–{b}" for a, b in runs) or "none"


def plural(n: int, one: str, many: str = "") -> str:
    """ "1 case", "2 cases"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def holding(n: int, *, all_of_them: bool = False) -> str:
    """ "1 check holds", "2 checks hold", "all 2 checks hold"."""
    every = "all " if all_of_them and n > 1 else ""
    return f"{every}{plural(n, 'check')} {'holds' if n == 1 else 'hold'}"


def cut(text: str, length: int) -> str:
    """The text on one line, escaped, and cut to `length` characters: it does not swamp the page."""
    flat = escaped(" ".join(text.split()))
    return flat if len(flat) <= length else f"{flat[: length - 1]}…"


def shortened(text: str, length: int) -> str:
    """The text, or its first `length` characters and how long it was."""
    if len(text) <= length:
        return text
    return f"{text[:length]}… (cut: {len(text):,} characters)"


def _escape(character: str) -> str:
    code = ord(character)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
