"""Ports found by whose they are, and which one goes for another."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from etherws.errors import DeviceError
from etherws.server.port import ClientKey, Origin, Port, State
from etherws.server.port_table import PortTable


class FakePort(Port):
    """One without a TAP."""

    def __init__(self) -> None:
        fake: Any = type("Fake", (), {"on_failure": None, "name": "ethws0"})()
        super().__init__(fake, fake, fake)

    def have(self, client: ClientKey) -> FakePort:
        """Be in use by this client."""
        self.become(State.IN_USE)
        self.belong_to(client)
        return self

    def keep(self, *, taken_over: bool = False) -> FakePort:
        """Be parked."""
        self.park(1000, lambda _: None, taken_over=taken_over)
        return self


@pytest.fixture
def table() -> PortTable:
    return PortTable()


def key(name: str | None, resume: str | None = None, address: str = "192.0.2.1") -> ClientKey:
    return ClientKey(name, resume, address)


def new(table: PortTable, client: ClientKey) -> FakePort:
    port = FakePort()
    table.add(port)
    return port.have(client)


def test_a_port_is_found_by_its_client_until_that_is_another(table: PortTable) -> None:
    port = new(table, key("alice", "token"))
    second = new(table, key("alice", "other"))
    assert table.of_client(key("alice", "token", address="198.51.100.7")) is port
    assert table.of_identity("alice") == [port, second]
    port.keep()
    assert table.of_client(key("alice", "token")) is port
    port.have(key("bob"))
    assert table.of_client(key("alice", "token")) is None
    assert (table.of_identity("alice"), table.of_identity("bob")) == ([second], [port])
    port.become(State.FREE)
    assert table.of_identity("bob") == []
    assert [*table] == [port, second]
    port.become(State.GONE)
    assert ([*table], len(table)) == ([second], 1)


def test_clients_without_a_name_are_found_by_their_tokens(table: PortTable) -> None:
    first, second = new(table, key(None, "a")), new(table, key(None, "b"))
    assert (table.of_client(key(None, "a")), table.of_client(key(None, "b"))) == (first, second)


def test_who_leaves_most_behind_loses_the_port_kept_longest(table: PortTable) -> None:
    honest = new(table, key("alice", address="192.0.2.1")).keep()
    many = [new(table, key(f"{number}", address="198.51.100.1")) for number in range(3)]
    for port in (many[1], many[0], many[2]):
        port.keep()
    gone: list[Port] = []
    while (found := table.kept_longest()) is not None:
        gone.append(found)
        found.become(State.FREE)
        found.become(State.GONE)
    assert gone == [many[1], many[0], honest, many[2]]
    assert table.kept == 0


def test_a_full_bridge_takes_ports_that_a_process_has_left_too_but_last(table: PortTable) -> None:
    """Else who leaves many behind keeps all others out after a restart."""
    ports = [new(table, key(f"{number}")) for number in range(2)]
    for port in ports:
        port.origin = Origin("ethws%d", None, None)
        port.keep(taken_over=port is ports[0])
    gone = list[Port]()

    def make() -> Port:
        if len(gone) % 2:
            return FakePort()
        raise DeviceError("full") from OSError(errno.EXFULL, "full")

    def release(port: Port) -> None:
        gone.append(port)
        port.become(State.FREE)
        port.become(State.GONE)

    assert table.kept == 1
    table.make(make, release, None)
    assert (gone, table.kept) == ([ports[1]], 0)
    gone.append(ports[1])
    table.make(make, release, None)
    assert gone[2:] == [ports[0]]


def test_a_full_bridge_takes_no_port_that_is_kept_in_another(table: PortTable) -> None:
    ports = [new(table, key(f"{number}")) for number in range(4)]
    for port, bridge in zip(ports, ("br1", None, "br2", "br1"), strict=True):
        port.origin = Origin("ethws%d", bridge, None)
        port.keep()
    made, gone = FakePort(), list[Port]()

    def make() -> Port:
        if len(gone) in (1, 3):
            return made
        raise DeviceError("full") from OSError(errno.EXFULL, "full")

    def release(port: Port) -> None:
        gone.append(port)
        port.become(State.FREE)
        port.become(State.GONE)

    assert table.make(make, release, "br2") is made
    assert gone == [ports[2]]
    gone.append(made)
    with pytest.raises(DeviceError):
        table.make(make, release, "br2")
    assert table.make(make, release, None) is made
    assert gone[2:] == [ports[1]]


def test_ports_that_a_whole_process_has_left_are_not_counted(table: PortTable) -> None:
    port = new(table, key("alice")).keep(taken_over=True)
    assert (table.kept, table.kept_longest()) == (0, None)
    port.have(key("alice")).keep()
    assert (table.kept, table.kept_longest()) == (1, port)
    port.become(State.FREE)
