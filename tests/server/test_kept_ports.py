"""Ports that outlive their process: what the next one finds in the store, and what it does with it. Real TAPs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from etherws.access.policy import Profile
from etherws.kernel import address_sets, interfaces
from etherws.kernel.rules import ADDRESSES, table_name
from etherws.kernel.store import Store
from etherws.server.port import ClientKey, Port, State
from etherws.server.ports import Ports
from etherws.settings import DeviceSettings
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import source

ALICE, BOB = ClientKey("alice", "a" * 22, "192.0.2.1"), ClientKey("bob", "b" * 22, "192.0.2.2")
USUAL = Profile()


class LastingStore(Store):
    """A store as systemd has it: it keeps copies of the descriptors, whatever becomes of the process."""

    def __init__(self, found: dict[str, list[int]] | None = None) -> None:
        super().__init__(found)
        self.lasting = True
        self.copies: dict[str, list[int]] = {name: [os.dup(fd) for fd in fds] for name, fds in (found or {}).items()}

    def keep(self, name: str, *fds: int) -> None:
        if name not in self.copies:
            self.copies[name] = [os.dup(fd) for fd in fds]

    def drop(self, name: str) -> None:
        for fd in self.copies.pop(name, []):
            os.close(fd)

    def next(self) -> LastingStore:
        """What the next process has."""
        return LastingStore({name: [os.dup(fd) for fd in fds] for name, fds in self.copies.items()})

    def close(self) -> None:
        for name in list(self.copies):
            self.drop(name)


class Lives:
    """One server, process after process, in one machine."""

    def __init__(self, host: Host, **settings: Any) -> None:
        self.host = host
        self.settings: dict[str, Any] = {"bridge": "br0", **settings}
        self.store = LastingStore()
        self.ports = self._start()

    def _start(self) -> Ports:
        return Ports(DeviceSettings(**self.settings), 1000.0, self.store)

    def join(self, client: ClientKey, profile: Profile = USUAL) -> Port:
        found: list[Port] = []

        def evict() -> None:
            gevent.spawn(self.ports.free, found[0])

        found.append(self.ports.take(client, profile, evict))
        return found[0]

    def crash(self, meanwhile: Callable[[], object] = lambda: None, **settings: Any) -> None:
        """The process is killed, and another one starts; or `meanwhile` happens before that."""
        self._forget()
        meanwhile()
        self.settings.update(settings)
        before, self.store = self.store, self.store.next()
        before.close()
        self.ports = self._start()

    def _forget(self) -> None:
        """What the kernel does when a process is killed: close its descriptors. Nothing of it runs any longer."""
        ports, maker = self.ports, self.ports._maker
        maker._bridges.close(handing_over=True)
        maker._kernel_filters.close(handing_over=True)
        for port in list(ports):
            if port.timer:
                port.timer.kill()
            port.tap.release()
            port.tap._device.close()
            maker._kept._kept[port][1].close()

    def close(self) -> None:
        self.ports.close()
        assert not self.store.copies
        self.store.close()


@contextlib.contextmanager
def living(host: Host, **settings: Any) -> Iterator[Lives]:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        lives = Lives(host, **settings)
        try:
            yield lives
        finally:
            lives.close()


@pytest.fixture
def lives(host: Host) -> Iterator[Lives]:
    with living(host) as made:
        yield made


def send(port: Port, *numbers: int) -> None:
    """Frames of the client, from these addresses."""
    port.sink().write_batch([bytes(VNET_BYTES) + frame(60, to=BROADCAST, source=source(n)) for n in numbers])


def interfaces_of(host: Host) -> dict[str, tuple[object, ...]]:
    """What must not change of each interface."""
    kept = ("address", "master", "mtu", "operstate", "carrier_changes")
    return {name: (link["index"], *map(link.get, kept)) for name, link in host.links().items()}


def addresses(port: Port) -> set[bytes]:
    return set(address_sets.addresses_in(table_name(port.tap.name), ADDRESSES))


def test_after_a_crash_each_client_finds_its_port_as_it_was(lives: Lives) -> None:
    profile = Profile(macs=2, isolated=True, rate_down=1_000_000)
    first, second = lives.join(ALICE, profile), lives.join(BOB)
    send(first, 1, 2, 3)
    used = addresses(first)
    assert len(used) == 2
    before = interfaces_of(lives.host)
    names = first.tap.name, second.tap.name
    lives.crash()
    assert [port.state for port in lives.ports] == [State.PARKED] * 2
    assert interfaces_of(lives.host) == before
    # Before anybody has come: what was used up stays so.
    assert addresses(next(iter(lives.ports))) == used
    first = lives.join(ALICE, profile)
    assert (first.tap.name, lives.join(BOB).tap.name) == names
    send(first, 4)
    assert addresses(first) == used
    assert interfaces.is_isolated(first.tap.index)
    assert interfaces.has_rate(first.tap.index, 1_000_000)
