"""Words of strangers in the columns of a terminal: what is shown of them, and how many columns it takes.

Pure. A name may hold escape sequences, marks without end, wide characters, or letters that run from right to left;
none of these reaches into its neighbours. Sources: Unicode Standard Annex 9 (right to left), 11 (wide characters).
Read next: status_table.py.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator

from wcwidth import wcswidth

#: Characters of a stranger's text that are shown at most, where it has a line of its own.
TEXT_MAX = 200

#: Marks above or below one letter that are shown: no writing needs more. A hundred would cover the lines above.
MARKS_MAX = 2

#: Directions of letters and digits that have those behind them run from right to left.
_FROM_RIGHT = {"R", "AL", "AN"}

#: The mark that ends such a run; it takes no column.
_LEFT_TO_RIGHT_MARK = "\N{LEFT-TO-RIGHT MARK}"

_CUT = "\N{HORIZONTAL ELLIPSIS}"


def shown(text: object, most: int = TEXT_MAX) -> str:
    """A stranger's text in one line: at most so many characters, "?" for each that controls a terminal."""
    found = []
    marks = 0
    words = str(text)
    for char in words[:most]:
        if unicodedata.category(char) in ("Mn", "Me"):
            marks += 1
            # Some of them change the width of the letter before, and terminals do not agree by how much.
            if marks > MARKS_MAX or "VARIATION SELECTOR" in unicodedata.name(char, ""):
                continue
        else:
            marks = 0
        found.append(char if char.isprintable() else "?")
    return "".join(found) + (_CUT if len(words) > most else "")


def width(text: str) -> int:
    """How many columns of a terminal the text takes; `text` is what shown() returns."""
    return max(0, wcswidth(text))


def clipped(text: str, columns: int) -> str:
    """The text, or as much of its beginning as so many columns hold, with an ellipsis."""
    if width(text) <= columns:
        return text
    # A character takes a column at least, or is a mark.
    while text and width(text) > columns - 1:
        text = text[:-1]
    return text + _CUT if columns else ""


def cell(text: str, columns: int, *, right: bool = False) -> str:
    """The text in so many columns, cut or filled with blanks; numbers stand at the `right`."""
    text = clipped(text, columns)
    blanks = " " * (columns - width(text))
    text = enclosed(text)
    return blanks + text if right else text + blanks


def wrapped(line: str, columns: int | None) -> Iterator[str]:
    """A sentence in lines of so many columns at most, if its words are not longer; the further ones are indented. None
    is as many columns as it takes."""
    if columns is None or width(line) <= columns:
        yield line
        return
    words = line.split()
    indent = " " * (len(line) - len(line.lstrip()))
    found = indent + words[0]
    for word in words[1:]:
        if width(f"{found} {word}") <= columns:
            found += f" {word}"
        else:
            yield found
            found = f"{indent}    {word}"
    yield found


def harmless(line: str) -> str:
    """A whole line for a terminal: whatever was forgotten before, nothing in it controls the terminal."""
    return "".join(char if char.isprintable() or char == _LEFT_TO_RIGHT_MARK else "?" for char in line)


def enclosed(text: str) -> str:
    """The text, such that its direction says nothing about what stands beside it."""
    if any(unicodedata.bidirectional(char) in _FROM_RIGHT for char in text):
        return f"{_LEFT_TO_RIGHT_MARK}{text}{_LEFT_TO_RIGHT_MARK}"
    return text
