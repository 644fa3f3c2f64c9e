"""The ports of a server in the store, where the next process finds them: each is a TAP and a state file.

Says what the last process left, refuses what cannot be used, and keeps what this one has. What becomes of a port is
decided in ports.py, and where its interface goes in port_maker.py. Read next: port_state.py, kernel/store.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from time import monotonic
from typing import NamedTuple

from etherws.errors import DeviceError, EtherwsError, SettingsError, printable
from etherws.kernel.state_file import StateFile, is_state_file
from etherws.kernel.store import Store
from etherws.server.port import Port
from etherws.server.port_state import PortState, from_state
from etherws.tunnel.tap import Tap
from etherws.tunnel.tap_driver import Header

log = logging.getLogger(__name__)

#: The beginning of their names in the store; the index of the interface follows.
PREFIX = "port-"


class Found(NamedTuple):
    """A port that the last process left."""

    name: str
    tap: Tap
    file: StateFile
    state: PortState


class KeptPorts:
    """The ports in the store. A store that lasts is told of each change; any other only of what is left at the end."""

    def __init__(self, store: Store, describe: Callable[[Port], PortState]) -> None:
        """`describe` says what is to be kept of a port."""
        self._store, self._describe = store, describe
        self._kept: dict[Port, tuple[str, StateFile]] = {}

    @property
    def lasting(self) -> bool:
        """Whether a crash of this process leaves the interfaces where they are."""
        return self._store.lasting

    def found(self) -> list[Found]:
        """What the last process left and can be used; the first port first. The rest is closed, with a line in the
        log for each."""
        found: dict[str, Found] = {}
        for name in [name for name in self._store.names() if name.startswith(PREFIX)]:
            fds = self._store.take(name)
            try:
                one = _adopt(name, fds)
                if (other := found.get(one.tap.name)) and other.tap.index == one.tap.index:
                    one.tap.release()
                    raise DeviceError(f"{one.tap.name} is there twice")
            except (EtherwsError, OSError) as exc:
                log.warning("%s of the process before cannot be used: %s", printable(name[:64]), exc)
                self._store.drop(name)
                _close(fds)
            else:
                found[one.tap.name] = one
        return sorted(found.values(), key=lambda one: (not one.state.first, one.state.since))

    def refuse(self, found: Found, why: str) -> None:
        """A port that was found is of no use: remove it."""
        log.warning("%s goes: %s", found.tap.name, why)
        self._store.drop(found.name)
        found.tap.close(delete=True)
        found.file.close()

    def use(self, port: Port, found: Found) -> None:
        """A port that was found is this one now."""
        self._kept[port] = found.name, found.file
        self._store.keep(found.name, port.tap.fileno(), found.file.fd)

    def note(self, port: Port) -> None:
        """The port is new, or has changed: keep it as it is now."""
        if self.lasting:
            self.keep([port])

    def keep(self, ports: Iterable[Port]) -> None:
        """Keep these ports as they are now."""
        for port in ports:
            try:
                self._keep(port)
            except (OSError, ValueError) as exc:
                log.warning("%s is not kept for the next process: %s", port.tap.name, exc)

    def _keep(self, port: Port) -> None:
        new = port not in self._kept
        if new:
            names = {name for name, _ in self._kept.values()}
            name = f"{PREFIX}{port.tap.index}"
            # Another one may have had this index before it was moved to another network namespace.
            while name in names:
                name += "+"
            self._kept[port] = name, StateFile()
        name, file = self._kept[port]
        file.write(self._describe(port).to_values())
        if new:
            self._store.keep(name, port.tap.fileno(), file.fd)

    def drop(self, port: Port) -> None:
        """The port is gone. Call this before its TAP is closed."""
        if port in self._kept:
            name, file = self._kept.pop(port)
            self._store.drop(name)
            file.close()


def check(store: Store) -> None:
    """Raise an EtherwsError unless what the last process left can be read. Nothing is taken or changed."""
    for name in store.names():
        if name.startswith(PREFIX):
            _read(store.look(name))


def _adopt(name: str, fds: list[int]) -> Found:
    """The port of these descriptors. Raises DeviceError, SettingsError or OSError; then they are still the caller's."""
    file, state = _read(fds)
    try:
        tap = Tap.adopt(next(fd for fd in fds if fd != file.fd), state.index, Header(*state.header))
    except DeviceError as exc:
        raise DeviceError(f"{exc} (it was {printable(state.name)})") from exc
    return Found(name, tap, file, state)


def _read(fds: list[int]) -> tuple[StateFile, PortState]:
    """The state among these descriptors. Raises SettingsError or OSError."""
    files = [fd for fd in fds if is_state_file(fd)]
    if len(files) != 1 or len(fds) != 2:
        raise SettingsError("it is not one interface and one state")
    owner = os.fstat(files[0]).st_uid
    # Who starts as root may give that up later.
    if os.geteuid() not in (0, owner) and owner != 0:
        raise SettingsError(f"its state was written by another user, {owner}")
    file = StateFile(files[0])
    return file, from_state(file.read(), monotonic())


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)
