"""What strangers' words do to the columns of a terminal: nothing."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.cli.operate.cells import MARKS_MAX, TEXT_MAX, cell, clipped, enclosed, harmless, shown, width, wrapped

HEBREW, MARK, CUT = "\u05d0\u05d1", "\N{LEFT-TO-RIGHT MARK}", "\N{HORIZONTAL ELLIPSIS}"


@pytest.mark.parametrize(
    ("text", "seen", "columns"),
    [
        ("alice", "alice", 5),
        ("\x1b[2J\r\n\x00", "?[2J???", 7),
        # Right-to-left overrides, which would turn the rest of the line around, and line separators.
        ("\u202ea\u2066b\u2028", "?a?b?", 5),
        ("\ud800", "?", 1),
        ("\u65e5\u672c", "\u65e5\u672c", 4),
        ("e" + "\u0301" * 50, "e" + "\u0301" * MARKS_MAX, 1),
        # A variation selector: terminals do not agree whether the heart is wide then.
        ("\u2764\ufe0fx", "\u2764x", 2),
        ("x" * 300, "x" * TEXT_MAX + CUT, TEXT_MAX + 1),
        (None, "None", 4),
    ],
)
def test_what_is_shown_of_a_text(text: object, seen: str, columns: int) -> None:
    assert shown(text) == seen
    assert width(seen) == columns


def test_a_cell_has_its_columns() -> None:
    assert cell("ab", 4) == "ab  "
    assert cell("12", 4, right=True) == "  12"
    assert cell("abcde", 4) == "abc" + CUT
    # A wide character does not fit into half of its columns.
    assert cell("\u65e5\u672c\u8a9e", 4) == "\u65e5" + CUT + " "
    assert clipped("abc", 0) == ""
    assert clipped("abc", 1) == CUT


def test_letters_from_the_right_say_nothing_about_what_is_beside_them() -> None:
    assert cell(HEBREW, 4) == f"{MARK}{HEBREW}{MARK}  "
    # Arabic digits alone, too.
    assert enclosed("\u0661") == f"{MARK}\u0661{MARK}"
    assert enclosed("abc 1") == "abc 1"


@given(st.text(max_size=60), st.integers(0, 20))
def test_no_text_is_wider_than_its_cell_or_controls_the_terminal(text: str, columns: int) -> None:
    found = cell(shown(text), columns)
    assert width(found) == columns
    assert harmless(found) == found
    assert all(unicodedata.category(char)[0] != "C" for char in found.replace(MARK, ""))


def test_a_sentence_is_broken_between_words() -> None:
    line = "  dropped: 12 address not allowed, 3 queue late"
    assert [*wrapped(line, None)] == [*wrapped(line, 47)] == [line]
    assert [*wrapped(line, 24)] == ["  dropped: 12 address", "      not allowed, 3", "      queue late"]
    assert [*wrapped("a-long-word b", 4)] == ["a-long-word", "    b"]


def test_a_line_is_harmless() -> None:
    assert harmless(f"a\x1b[m\u202e{MARK}b") == f"a?[m?{MARK}b"
