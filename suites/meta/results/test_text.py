"""Figures, positions and messages as people read them."""

import math

import pytest

from harness.results.text import cut, escaped, mebibytes, number, plural, spans


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
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        ("\x7f\x9b", "\\x7f\\x9b"),
        ("\u202eabc\u2066\u200f", "\\u202eabc\\u2066\\u200f"),
        ("\ud800\udc80", "\\ud800\\udc80"),
        ("\U000e0041\ufeff\uffff", "\\U000e0041\\ufeff\\uffff"),
        ("ü ñ – 日本 🙂 e\u0301", "ü ñ – 日本 🙂 e\u0301"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text, shown):
    assert escaped(text) == shown
    assert escaped(escaped(text)) == shown
    shown.encode("utf-8")
    assert escaped("a\nb\x1b", keep="\n") == "a\nb\\x1b"
