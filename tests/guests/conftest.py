"""The two machines of these tests, and the times of what is typed there."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guests import image
from tests.guests.machine import Guest
from tests.guests.pair import INSTALL, PACKAGE, Pair, Times
from tests.lab import debian, disks
from tests.lab.pages import commands
from tests.lab.readme import blocks
from tests.vm.package import FOLDER, copy_package

#: The size of the checkout's disk, with room for what pip builds there.
CHECKOUT_SIZE = "128M"

TIMES = Times()


@pytest.fixture(scope="session")
def times() -> Times:
    """The times so far."""
    return TIMES


@pytest.fixture(scope="session")
def bare(times: Times) -> Iterator[Pair]:
    """Two machines without etherws. The checkout is there, with its Debian package."""
    with contextlib.ExitStack() as made, tempfile.TemporaryDirectory(prefix="etherws-") as temporary:
        folder = Path(temporary)
        try:
            disk = made.enter_context(image.disk())
            debian.copy_checkout(folder / "files", changes=True)
            copy_package(folder / "files" / FOLDER)
        except PermissionError as exc:
            # No test of this folder can run.
            pytest.exit(f"cannot make the disk of the machines, or the Debian package: {exc}", returncode=1)
        disks.make_disk(folder / "files", folder / "checkout", CHECKOUT_SIZE)
        with contextlib.ExitStack() as stack:
            guests = [
                stack.enter_context(contextlib.closing(Guest(number, disk, folder / "checkout", folder)))
                for number in (1, 2)
            ]
            pair = Pair(*guests)
            with times.of("boot of both machines"):
                pair.both(Guest.boots)
            yield pair


@pytest.fixture
def packaged(bare: Pair, times: Times) -> Iterator[Pair]:
    """The two machines with the Debian package, which is purged at the end."""
    with times.of(PACKAGE):
        bare.both(lambda guest: bare.type_in_turn(guest, *commands("debian.rst", "Install")))
    yield bare
    *_, purge = commands("debian.rst", "Remove")
    bare.both(lambda guest: bare.type_in_turn(guest, purge))
    assert bare.one.tries("command -v etherws")[1] != 0


@pytest.fixture(scope="session")
def pair(bare: Pair, times: Times) -> Pair:
    """The two machines once the README's section "Install" was typed there."""
    install = [command for block in blocks() if block.heading == "Install" for command in block.commands]
    with times.of(INSTALL):
        bare.both(lambda guest: bare.type_in_turn(guest, *install))
    return bare


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the times."""
    if TIMES.seconds:
        terminalreporter.section("what was typed on two bare machines, and how long it took")
        terminalreporter.write_line(TIMES.table())
