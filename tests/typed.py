"""The list of all commands in README.rst and docs/, with the test that types each, or the reason why none does:
``python -m tests.typed``. It fails if more than one in ten has no test; of those it names the ones that have no reason
either. The tests write the record themselves (tests/lab/typed.py); `make acceptance` runs all that type, and then this.
A test that was skipped, as for a program that is not there, has typed nothing.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab import typed
from tests.lab.pages import all_commands, pages
from tests.lab.readme import README, blocks

_LIBVIRT = "libvirt's daemon would need a machine of its own"

#: Commands that no test types, by how they begin, and why.
NOT_TYPED = {
    "virsh net-define": _LIBVIRT,
    "virsh net-start": _LIBVIRT,
    "virsh net-autostart": _LIBVIRT,
    "systemctl edit": "it opens an editor",
    "nmcli ": "it needs NetworkManager, and its D-Bus",
    "cntlm ": "it needs a proxy with NTLM",
    "ssh -L": "it needs a machine with a server of SSH",
    ".venv/bin/python bench/gateways.py": "it measures for minutes",
    ".venv/bin/python -m pytest": "it runs tests, which run themselves",
}


@dataclass(frozen=True)
class Row:
    """A command of a page, the tests that type it, and the reason if none does."""

    page: str
    command: str
    tests: tuple[str, ...]
    reason: str = ""


def reason(command: str) -> str:
    """Why no test types the command; empty if one does or should."""
    return next((why for beginning, why in NOT_TYPED.items() if command.startswith(beginning)), "")


def every_command() -> list[tuple[str, str]]:
    """The page and text of each command, in the order of the pages; a command that a page repeats counts once."""
    found = [(README.name, command) for block in blocks() for command in block.commands]
    found += [(f"docs/{page}", command) for page in pages() for command in all_commands(page)]
    return list(dict.fromkeys(found))


def rows() -> Iterator[Row]:
    """The list, of what is recorded now."""
    tests: dict[str, list[str]] = {}
    for record in typed.kept():
        for command in record["commands"]:
            tests.setdefault(command, []).append(record["test"])
    # Continuous integration itself runs some.
    integration = (typed.CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
    for command in re.findall(r"^part \d+ (.*)$", integration, re.MULTILINE):
        tests.setdefault(command, []).append(".ci/run")
    for page, command in every_command():
        by = tuple(dict.fromkeys(tests.get(command, ())))
        yield Row(page, command, by, "" if by else reason(command))


def main() -> None:
    """Print the list, and what is wrong with it."""
    page, found = "", list(rows())
    for row in found:
        if row.page != page:
            page = row.page
            print(f"\n{page}")
        more = f" and {len(row.tests) - 1} more" if len(row.tests) > 1 else ""
        print(f"  {row.command}\n    {row.tests[0] + more if row.tests else f'none: {row.reason}'}")
    missing = [row for row in found if not row.tests and not row.reason]
    left_out = [row for row in found if not row.tests]
    print(f"\n{len(found)} commands: tests type {len(found) - len(left_out)}, and {len(left_out)} are not typed.")
    for row in missing:
        print(f"no test has typed this one of {row.page}, nor is there a reason: {row.command}")
    if len(left_out) * 10 > len(found):
        sys.stdout.flush()
        sys.exit("At most one command in ten may have no test that types it; make acceptance runs them all.")


if __name__ == "__main__":
    main()
