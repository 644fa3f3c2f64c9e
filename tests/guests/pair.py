"""Both machines, what a reader of a page does on them, and the times that this takes. One of them: machine.py."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from tests.guests.machine import Guest
from tests.lab.pages import shown_once

#: What apt asks before it installs, and the answer.
APT = {"Do you want to continue? [Y/n]": "y"}

#: What takes a user from two bare machines to a link: one of the two ways to install, and the two commands.
PACKAGE, INSTALL = "apt install, on both at once", "README, Install, on both at once"
TO_LINK = "etherws init server, init client, and the link is there"


class Times:
    """Seconds by what they were spent on, in the order of the first of each; shown at the end."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Add what the block takes."""
        begun = time.monotonic()
        yield
        self.seconds[what] = self.seconds.get(what, 0) + time.monotonic() - begun

    def table(self) -> str:
        """A line for each, and one for the way to a link."""
        lines = dict(self.seconds)
        if TO_LINK in lines:
            for how, name in ((PACKAGE, "by the package"), (INSTALL, "by pip")):
                if how in lines:
                    whole = f"from two bare machines to a link, {name}, boots not counted"
                    lines[whole] = self.seconds[how] + self.seconds[TO_LINK]
        return "\n".join(f"{seconds:7.1f} s  {what}" for what, seconds in lines.items())


class Pair:
    """Both machines."""

    def __init__(self, one: Guest, two: Guest) -> None:
        self.one, self.two = one, two
        self._pool = ThreadPoolExecutor(2)

    def both(self, do: Callable[[Guest], object]) -> None:
        """Do it on both at once."""
        list(self._pool.map(do, (self.one, self.two)))

    def type_in_turn(self, guest: Guest, *commands: str) -> str:
        """Type commands of a page; return what the last one prints."""
        output = ""
        for command in commands:
            output = guest.types(shown_once(command), APT)
        return output
