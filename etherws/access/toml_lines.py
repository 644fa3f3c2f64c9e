"""TOML, with the line of each mistake: of one in the text itself, and of a key whose value will not do.

Pure. Python's own parser reads the text, and says where it does not understand it; but it keeps no lines of what it has
understood. They are found by asking it again about parts of the text, which costs nothing until there is a mistake.
policy.py is what this is for.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from typing import Any

from etherws.errors import PolicyError, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


#: Characters to read in vain, in all, for the end of a statement: a second's work or so.
PATIENCE = 4 << 20


def loads(text: str, name: str) -> dict[str, Any]:
    """The tables in `text`; raises PolicyError, with the line in the file `name`, if it is not TOML."""
    try:
        # A mistake on a last line without its end would be said to be at the end of the document, which is no line.
        document: dict[str, Any] = tomllib.loads(text + "\n")
        return document
    except (ValueError, RecursionError) as exc:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(exc), re.DOTALL)
        if found and found[2]:
            line, what = int(found[2]), f"{printable(found[1])} at column {found[3]}"
        else:
            # What is left open is noticed at the end. A number of thousands of digits, or lists in lists in lists, are
            # errors of Python's, which names no place. Both are in the first statement that never becomes whole.
            line = _ends(_lines(text))[-1] + 1
            what = printable(found[1]) if found else "a value is too long or too deeply nested"
    raise PolicyError(f"{name}:{line}: {what}; texts need quotes, lists brackets, and a key stands once in a table")


def line_of(text: str, path: tuple[str, ...]) -> int:
    """The line on which the statement begins that brings in the key at `path`; for a text that loads() takes."""

    def brought_in(end: int) -> bool:
        here = tomllib.loads("\n".join(lines[:end]))
        for key in path:
            if key not in here:
                return False
            here = here[key]
        return True

    lines = _lines(text)
    ends = _ends(lines)
    return ends[bisect_left(ends, True, key=brought_in) - 1] + 1


def _lines(text: str) -> list[str]:
    """The lines of `text` as TOML counts them."""
    return text.replace("\r\n", "\n").split("\n")


def _ends(lines: list[str]) -> list[int]:
    """How many lines from the top end with a statement, in ascending order from 0.

    The parser itself is asked: what begins with a statement parses as soon as it is whole, and not before. They
    end before a statement that is never whole, or so long that PATIENCE is not enough.
    """
    ends = [0]
    spent = 0
    for end, line in enumerate(lines, 1):
        # A statement of several lines ends on one with a closing bracket or quote. Thus no long list is parsed anew
        # with each of its lines.
        if end - 1 > ends[-1] and not re.search("[]}]|\"\"\"|'''", line):
            continue
        part = "\n".join(lines[ends[-1] : end])
        try:
            tomllib.loads(part)
        except (ValueError, RecursionError):
            spent += len(part)
            if spent > PATIENCE:
                break
        else:
            ends.append(end)
    return ends
