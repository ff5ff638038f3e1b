"""Figures, positions and messages as people read them."""

import math

import pytest

from harness.results.text import cut, mebibytes, number, plural, printable, spans


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        (614400.0, "614,400"),
        (1.25e-7, "1.25e-07"),
        (math.inf, "∞"),
        (1234.5, "1,234"),
        (math.nan, "nan"),
        (-math.inf, "-∞"),
        (0.0, "0"),
        (2**53 - 1, "9.01e+15"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_what_there_is_no_number_of_reads_as_asked():
    assert number(None, "-") == "-"
    assert number(0, "-") == "0"


def test_sizes_and_counts():
    assert mebibytes(1536 * 2**20) == "1,536 MiB"
    assert mebibytes(2**20 + 2**19) == "1.5 MiB"
    assert (plural(1, "case"), plural(2_000, "case")) == ("1 case", "2,000 cases")


def test_spans():
    assert spans([3, 0, 1, 2, 9]) == "0–3, 9"
    assert spans([]) == "none"


def test_a_text_is_cut_to_one_line_of_the_length_that_is_asked_for():
    assert cut("a\n  b ", 3) == "a b"
    assert cut("abcdef", 5) == "abcd…"
    assert len(cut("word " * 100, 40)) == 40


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain … gemma–3 日本 🙂 \\", "plain … gemma–3 日本 🙂 \\"),
        ("\x1b[2J\x1b]0;t\x07", r"\x1b[2J\x1b]0;t\x07"),
        ("a\r\nb\tc\x00\x7f\x85\x9b", r"a\r\nb\tc\x00\x7f\x85\x9b"),
        ("\u202eevil\u2066\u200f\u2028", r"\u202eevil\u2066\u200f\u2028"),
        ("\ud800 \udcff", r"\ud800 \udcff"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    printable(text).encode("utf-8")
