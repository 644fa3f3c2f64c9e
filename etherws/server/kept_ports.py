"""The ports of a server in the store, where the next process finds them: each is a TAP and a state file.

Says what the last process left, refuses what cannot be used, and keeps what this one has. What becomes of a port is
decided in ports.py, and where its interface goes in port_maker.py. Read next: port_state.py, tunnel/kept_tap.py.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any, TypeAlias

from etherws.kernel.state_file import StateFile
from etherws.kernel.store import Store
from etherws.server.port import ClientKey, Port, State
from etherws.server.port_state import PortState, from_state
from etherws.tunnel import kept_tap
from etherws.tunnel.kept_tap import KeptTap

log = logging.getLogger(__name__)

#: A port that the last process left.
Found: TypeAlias = KeptTap[PortState]


class KeptPorts:
    """The ports in the store. A store that lasts is told of each change; any other only of what is left at the end."""

    def __init__(self, store: Store, describe: Callable[[Port], PortState]) -> None:
        """`describe` says what is to be kept of a port."""
        self._store, self._describe = store, describe
        self._kept: dict[Port, tuple[str, StateFile]] = {}
        self._names: set[str] = set()

    @property
    def lasting(self) -> bool:
        """Whether a crash of this process leaves the interfaces where they are."""
        return self._store.lasting

    def found(self) -> list[Found]:
        """What the last process left and can be used; the first port first. The rest is closed, with a line in the
        log for each."""
        return sorted(kept_tap.found(self._store, _read), key=lambda one: (not one.state.first, one.state.since))

    def refuse(self, found: Found, why: str) -> None:
        """A port that was found is of no use: remove it."""
        log.warning("%s is removed: %s", found.tap.name, why)
        self._store.drop(found.name)
        found.tap.close()
        found.file.close()

    def use(self, port: Port, found: Found) -> None:
        """A port that was found is this one now."""
        self._kept[port] = found.name, found.file
        self._names.add(found.name)
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
            name = f"{kept_tap.PREFIX}{port.tap.index}"
            # Another one may have had this index before it was moved to another network namespace.
            while name in self._names:
                name += "+"
            self._names.add(name)
            self._kept[port] = name, StateFile()
        name, file = self._kept[port]
        file.write(self._describe(port).to_values())
        if new:
            self._store.keep(name, port.tap.fileno(), file.fd)

    def drop(self, port: Port) -> None:
        """The port is gone. Call this before its TAP is closed."""
        if port in self._kept:
            name, file = self._kept.pop(port)
            self._names.discard(name)
            self._store.drop(name)
            file.close()


def describe(
    port: Port, *, first: bool, member: tuple[int, str] | None, inet: tuple[int, tuple[str, ...]] | None
) -> PortState:
    """What is to be kept of a port. `first` is whether it is the first one, `member` the bridge in which it belongs,
    `inet` the IP addresses that were given."""
    client = port.client
    return PortState(
        first=first,
        index=port.tap.index,
        name=port.filter.name or port.tap.name,
        header=(port.tap.header.size, port.tap.header.little_endian),
        device=port.origin.device,
        bridge=port.origin.bridge,
        mtu=port.origin.mtu,
        member=member,
        # A client that cannot be recognised gets no port back.
        in_use=port.state in (State.IN_USE, State.PARKED) and client != ClientKey(),
        identity=client.identity,
        resume=client.resume,
        address=client.address,
        profile=port.profile,
        changes=tuple(port.changes),
        since=port.since,
        inet=inet,
    )


def check(store: Store) -> None:
    """Raise an EtherwsError unless what the last process left can be read. Nothing is taken or changed."""
    kept_tap.check(store, _read)


def _read(values: dict[str, Any] | None) -> PortState:
    return from_state(values, monotonic())
