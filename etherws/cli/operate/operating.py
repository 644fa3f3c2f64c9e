"""``etherws kick``, ``stop``, ``reload``, ``drain`` and ``page``: has a running process do something, and says what.

What systemd does better is left to it, with the command to write: it would start again what has stopped, and only its
reload renews the copies of files that a unit reads. Read next: control.py, which asks; observe/orders.py.
"""

from __future__ import annotations

import contextlib
import re
import sys
import time
from pathlib import Path

import click

from etherws.cli.operate import units
from etherws.cli.operate.cells import harmless, shown
from etherws.cli.operate.instances import chosen
from etherws.errors import ControlError, NoAnswer, NotAllowed, NotRunning, some_of

#: Seconds until a process that was told to stop has ended. It promises two (client/reconnect.py, STOP_TIMEOUT).
STOP_TIMEOUT, LOOK = 15.0, 0.1

#: Clients that a message names.
NAMED = 20


def kick(name: str | None, control: str | None, client: str, seconds: float) -> None:
    """End a client's sessions; it is refused for so many seconds. Raises ControlError."""
    process = chosen(name, control, role="server")
    ended = process.post("/kick", client=client, seconds=seconds).get("ended")
    labels = [shown(label) for label in ended] if isinstance(ended, list) else []
    more = f"; refused for {units.duration(seconds)}" if seconds else ""
    _say(f"ended: {some_of(labels, NAMED) or shown(client)}{more}")


def stop(name: str | None, control: str | None) -> None:
    """End a process, and wait for its end. Raises ControlError."""
    process = chosen(name, control)
    number = process.process()
    unit, _ = _service(number)
    if unit:
        raise ControlError(f"{process.name} is a service of systemd, which would start it again; write: {unit('stop')}")
    process.post("/stop")
    deadline = time.monotonic() + STOP_TIMEOUT
    while time.monotonic() < deadline:
        try:
            if process.process() != number:
                _say(f"{process.name} has ended, and something has started it again")
                return
        except NotRunning:
            _say(f"{process.name} has ended")
            return
        except NotAllowed:
            break
        time.sleep(LOOK)
    raise NoAnswer(f"{process.name} was told to stop, and has not ended after {STOP_TIMEOUT:g} s; see its log")


def reload(name: str | None, control: str | None) -> None:
    """As SIGHUP. Raises ControlError."""
    process = chosen(name, control)
    unit, copies = _service(process.process())
    if unit and copies:
        raise ControlError(
            f"{process.name} is a service of systemd, which copies its files for it; write: {unit('reload')}"
        )
    process.post("/reload")
    _say(f"{process.name} was told to reload; etherws events shows what has come of it")


def drain(name: str | None, control: str | None, seconds: float) -> None:
    """Let nobody join any more, and end all sessions within so many seconds. Raises ControlError."""
    process = chosen(name, control, role="server")
    process.post("/drain", seconds=seconds)
    _say(f"{process.name} is draining: nobody may join, and all sessions end within {units.duration(seconds)}")


def page(name: str | None, control: str | None) -> None:
    """Print an address by which a browser is let in. Raises ControlError."""
    process = chosen(name, control)
    address = process.post("/page").get("address")
    if not isinstance(address, str):
        raise ControlError(f"{process.name} gives no address; is it of another version?")
    _say(shown(address, 1000))
    if sys.stdout.isatty():
        click.echo("open it within a minute; it lets in one browser, once", err=True)


class _Unit:
    """A service of systemd."""

    def __init__(self, name: str, *, of_user: bool) -> None:
        self._name, self._options = name, " --user" if of_user else ""

    def __call__(self, verb: str) -> str:
        """The command that has systemd do this."""
        return f"systemctl{self._options} {verb} {self._name}"


def _service(process: int) -> tuple[_Unit | None, bool]:
    """The service of systemd that this process is, None if it is none; and whether it reads copies of files, which
    ``etherws stage`` makes."""
    folder = Path("/proc", str(process))
    with contextlib.suppress(OSError):
        environ = (folder / "environ").read_bytes().split(b"\0")
        # What starts a service in the background of a shell, or by cron, has none.
        if any(each.startswith(b"NOTIFY_SOCKET=") for each in environ):
            group = (folder / "cgroup").read_text(errors="replace")
            # What runs within a user's manager has that one's unit above it.
            if found := re.search(r"^.*/([\w@:.\\-]+\.service)$", group, re.MULTILINE):
                copies = any(each.startswith(b"ETHERWS_COPIES=") for each in environ)
                return _Unit(found[1], of_user="/user@" in found[0]), copies
    return None, False


def _say(text: str) -> None:
    click.echo(harmless(text))
