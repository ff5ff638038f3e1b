"""Texts of subjects, tests and files in Markdown: no markup of theirs works, and nobody is called.

Inline code is the one place where Markdown leaves a text alone; plain words may stand outside it.
"""

from __future__ import annotations

import re

from harness.results.text import cut

LONGEST = 300  # characters of a message or a case
#: What Markdown shows as it is: words, and marks that mean nothing between words.
_PLAIN = re.compile(r"[^\W_](?:[\w ,.;%+-]|'(?!')|:(?!//)|/(?!/)|[()])*")


def code(text: str, length: int = LONGEST) -> str:
    """The text as inline code on one line, cut to `length` characters; "-" without any."""
    flat = cut(text.replace("```", "'''"), length)
    return f"`{flat.replace('`', chr(39)).replace('|', chr(92) + '|')}`" if flat else "-"


def prose(text: str, length: int = LONGEST) -> str:
    """Plain words as they are, anything else as inline code."""
    flat = cut(text, length)
    plain = _PLAIN.fullmatch(flat) and not re.search(r"(?<!\w)_|_(?!\w)|www\.", flat)
    return flat if plain else code(flat, length)
