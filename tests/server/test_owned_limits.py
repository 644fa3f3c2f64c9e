"""Limits belong to who it is: connecting anew, in whatever way, gives nobody more source addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import gevent
import pytest

from etherws.access.policy import Profile
from etherws.kernel import address_sets
from etherws.kernel.rules import ADDRESSES, table_name
from etherws.server.port import ClientKey, Port, State
from etherws.server.ports import Ports
from etherws.settings import DeviceSettings
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import source

FOUR, ONE = Profile(macs=4), Profile(macs=1)
HERE, ELSEWHERE = "192.0.2.1", "192.0.2.2"


class Server:
    """Ports, and clients that use a new address with each frame."""

    def __init__(self, resume_timeout: float = 1000.0) -> None:
        self.ports = Ports(DeviceSettings(bridge="br0"), resume_timeout)
        self.used: set[bytes] = set()
        self._fresh = 100

    def join(self, client: ClientKey, profile: Profile = FOUR) -> Port:
        """A client comes; when it is told to end, it is gone without a good-bye."""
        found: list[Port] = []

        def evict() -> None:
            gevent.spawn(self.ports.park, found[0])

        port = self.ports.take(client, profile, evict)
        assert isinstance(port, Port)
        found.append(port)
        return found[0]

    def use(self, port: Port, *numbers: int) -> set[bytes]:
        """Send from these addresses, or from many new ones; return the addresses that the port has now."""
        if not numbers:
            numbers = tuple(range(self._fresh, self._fresh + 10))
            self._fresh += 10
        sink = port.sink()
        for number in numbers:
            sink.write_batch([bytes(VNET_BYTES) + frame(60, to=BROADCAST, source=source(number))])
        found = set(address_sets.addresses_in(table_name(port.tap.name), ADDRESSES))
        self.used |= found
        return found


@pytest.fixture
def server(host: Host) -> Iterator[Server]:
    """The ports of lost clients are kept for as long as the test takes."""
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        made = Server()
        yield made
        made.ports.close()


def key(identity: str | None, address: str = HERE, token: str | None = None) -> ClientKey:
    return ClientKey(identity, token and token * 22, address)


def good_bye(server: Server, port: Port) -> None:
    server.ports.free(port)


def loss(server: Server, port: Port) -> None:
    server.ports.park(port)


def stays(server: Server, port: Port) -> None:
    """It is still there when it comes again."""


def expiry(server: Server, port: Port) -> None:
    server.ports._resume_timeout = 0.001
    server.ports.park(port)
    while port.state is State.PARKED:
        gevent.sleep(0.001)
    # While its addresses are read, it may come again.
    server.ports._resume_timeout = 1000.0


Way = Callable[[Server, Port], None]


@pytest.mark.parametrize("tokens", [None, "a", "abcdefgh"], ids=["no token", "same token", "other tokens"])
@pytest.mark.parametrize("leave", [good_bye, loss, stays, expiry])
@pytest.mark.parametrize("further", [False, True], ids=["first port", "further port"])
def test_an_identity_has_so_many_addresses_however_it_comes_again(
    server: Server, leave: Way, tokens: str | None, further: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etherws.server.port.CHANGES_WITHIN", 0.0)
    if further:
        server.join(key("bob"))
    for number in range(6):
        port = server.join(key("alice", token=tokens and tokens[number % len(tokens)]))
        assert len(server.use(port)) == 4
        leave(server, port)
    assert len(server.used) == 4


@pytest.mark.parametrize("tokens", ["a", "abcdefgh"], ids=["same token", "other tokens"])
@pytest.mark.parametrize("leave", [good_bye, expiry])
def test_so_has_an_address_where_there_are_no_identities(server: Server, leave: Way, tokens: str) -> None:
    for number in range(6):
        port = server.join(key(None, token=tokens[number % len(tokens)]))
        server.use(port)
        leave(server, port)
    assert len(server.used) == 4
    # Another address has its own.
    assert len(server.use(server.join(key(None, ELSEWHERE))) - server.used) == 0
    assert len(server.used) == 8


def test_two_connections_in_turn_or_at_once_have_twice_as_many_at_most(server: Server) -> None:
    two = Profile(macs=4, connections=2)
    for number in range(8):
        port = server.join(key("alice"), two)
        server.use(port)
        if number % 3 == 2:
            server.ports.free(port)
    assert len(server.used) == 8


def test_ports_at_once_are_counted_not_those_one_after_the_other(server: Server) -> None:
    for _ in range(4):
        ports = [server.join(key(None)) for _ in range(3)]
        for port in ports:
            server.use(port)
        for port in ports:
            server.ports.free(port)
    assert len(server.used) == 12


def test_many_clients_behind_one_address_have_their_own(server: Server) -> None:
    for number in range(20):
        assert server.use(server.join(key(None), ONE), number) == {source(number)}


def test_a_change_of_the_policy_gives_no_new_addresses(server: Server) -> None:
    port = server.join(key("alice"))
    server.use(port)
    server.ports.park(port)
    # The port is of another profile, and goes.
    fewer = server.join(key("alice"), Profile(macs=2))
    assert len(server.use(fewer)) == 2
    server.ports.free(fewer)
    assert len(server.use(server.join(key("alice"), Profile(macs=4, mtu=1400)))) == 4
    assert len(server.used) == 4


def test_an_address_that_is_known_goes_on_working_on_another_port(server: Server) -> None:
    first = server.join(key("alice"), ONE)
    server.use(first, 1)
    server.ports.free(first)
    server.join(key("bob"))
    second = server.join(key("alice"), ONE)
    assert second is not first
    assert server.use(second, 1) == {source(1)}


def test_two_machines_of_one_owner_may_come_again_in_another_order(server: Server) -> None:
    two = Profile(macs=1, connections=2)
    for order in ((1, 2), (2, 1), (2, 1), (1, 2)):
        ports = [server.join(key("alice"), two) for _ in order]
        for port, number in zip(ports, order, strict=True):
            assert server.use(port, number) == {source(number)}
        for port in ports:
            server.ports.free(port)


def test_what_a_port_learned_is_not_the_next_clients(server: Server) -> None:
    first = server.join(key("alice"))
    server.use(first)
    server.ports.free(first)
    assert server.use(server.join(key("bob")), 1, 2) == {source(1), source(2)}


def test_a_client_that_comes_while_its_parked_port_expires_has_it(server: Server) -> None:
    port = server.join(key("alice"))
    server.use(port)
    server.ports.park(port)
    expiring = gevent.spawn(server.ports.free, port)
    gevent.idle()
    again = server.join(key("alice"))
    expiring.get()
    assert again.state is State.IN_USE
    server.use(again)
    assert len(server.used) == 4
