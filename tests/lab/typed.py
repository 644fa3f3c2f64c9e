"""The record of what tests type of the commands in README.rst and docs/: a file for each test, in .venv/typed. A test
that runs a command in other words than the page's, such as with the names of its own machine, notes the page's words.
Who reads it: tests/typed.py, which prints the list of all commands with their tests.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

CHECKOUT = Path(__file__).resolve().parents[2]

#: Where the records are. `make acceptance` begins with none.
FOLDER = CHECKOUT / ".venv" / "typed"

#: Begins a line of a record on the console of the machine of `make vm`, whose files are gone with it.
MARK = "typed: "

#: The tests of this process that have a record: what an earlier run wrote of them is replaced.
_begun: set[str] = set()


class Record(TypedDict):
    """Commands of pages, and the test that has typed them, as pytest names it."""

    test: str
    commands: list[str]


def note(*commands: str) -> None:
    """Note that the running test types these commands, which stand so in a page."""
    # pytest sets it, and names the part of the test behind a blank: setup, call or teardown.
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if test:
        keep({"test": test, "commands": [" ".join(command.split()) for command in commands]})


def keep(record: Record) -> None:
    """Add a record to those of its test."""
    test = record["test"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{hashlib.sha256(test.encode()).hexdigest()[:16]}.jsonl"
    with open(path, "a" if test in _begun else "w", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    _begun.add(test)


def kept() -> Iterator[Record]:
    """All records of the tests that there still are."""
    for path in sorted(FOLDER.glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            record: Record = json.loads(line)
            file, *_, name = record["test"].partition("[")[0].split("::")
            source = CHECKOUT / file
            if source.is_file() and f"def {name}(" in source.read_text(encoding="utf-8"):
                yield record
