"""Parse TOML, and find the line of a mistake: in the text itself, or of a key with a wrong value.

Pure. Python's own parser reads the text and reports the place of an error; but it keeps no line numbers of the keys
that it has read. They are found by parsing parts of the text again, which happens only if there is a mistake. policy.py
uses this, and config/configuration.py.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from typing import Any

from etherws.errors import TomlError, printable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


#: Characters, in all, to parse again in the search for the end of a statement: about a second of work.
SEARCH_MAX = 4 << 20

#: What stands before a value: a bare key or one in quotes, and the sign.
_KEY = re.compile(r"""[ \t]*(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')[ \t]*=[ \t]*""")


def loads(text: str) -> dict[str, Any]:
    """The tables in `text`. Raises TomlError, with the line, if it is not TOML."""
    try:
        # Without a line end after the last line, the parser would report a mistake there as "at end of document",
        # which is no line number.
        document: dict[str, Any] = tomllib.loads(text + "\n")
        return document
    except (ValueError, RecursionError) as exc:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(exc), re.DOTALL)
        if found and found[2]:
            line, column, reason = int(found[2]), int(found[3]), f"{printable(found[1])} at column {found[3]}"
        else:
            # The parser notices at the end of the text that something was not closed. For a number with thousands of
            # digits, and for deeply nested lists, Python's own errors come, which have no place. In each case the
            # mistake is in the first statement that never becomes complete.
            line, column = _statement_ends(_lines(text))[-1] + 1, 0
            reason = printable(found[1]) if found else "a value is too long or too deeply nested"
    hint = "put texts in quotes, lists in brackets, and each key only once in a table"
    raise TomlError(line, f"{reason}; {hint}", column)


def line_of(text: str, path: tuple[str, ...]) -> int:
    """The first line of the statement that defines the key at `path`. `text` must be one that loads() accepts."""

    def defined_by(end: int) -> bool:
        table = tomllib.loads("\n".join(lines[:end]))
        for key in path:
            if key not in table:
                return False
            table = table[key]
        return True

    lines = _lines(text)
    ends = _statement_ends(lines)
    return ends[bisect_left(ends, True, key=defined_by) - 1] + 1


def place_of(text: str, key: str, *, value: bool = False) -> tuple[int, int]:
    """The line and the column, both counted from 1, of a key that stands in no table; or of its value. `text` must be
    one that loads() accepts."""
    number = line_of(text, (key,))
    line = _lines(text)[number - 1]
    found = _KEY.match(line)
    return number, (found.end() if found and value else len(line) - len(line.lstrip(" \t"))) + 1


def _lines(text: str) -> list[str]:
    """The lines of `text` as TOML counts them."""
    return text.replace("\r\n", "\n").split("\n")


def _statement_ends(lines: list[str]) -> list[int]:
    """The numbers of lines after which a statement ends, in ascending order, beginning with 0.

    The parser decides: a text that begins with a statement parses as soon as the statement is complete, and not before.
    The list stops before a statement that is never complete, or for which SEARCH_MAX is not enough.
    """
    ends = [0]
    parsed = 0
    for end, line in enumerate(lines, 1):
        # A statement of several lines ends on a line with a closing bracket or quote. The check saves parsing a long
        # list again for each of its lines.
        if end - 1 > ends[-1] and not re.search("[]}]|\"\"\"|'''", line):
            continue
        part = "\n".join(lines[ends[-1] : end])
        try:
            tomllib.loads(part)
        except (ValueError, RecursionError):
            parsed += len(part)
            if parsed > SEARCH_MAX:
                break
        else:
            ends.append(end)
    return ends
