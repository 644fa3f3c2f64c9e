"""The life of a port: real TAPs in a bridge, and sessions that are a function to end them."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gevent
import pytest
import pytun

from etherws.access.policy import Profile
from etherws.errors import ClientGone, DeviceError, NoPort, Refused
from etherws.kernel import interfaces, links, nftables, port_tables
from etherws.kernel.filter_state import FilterState
from etherws.server import port as port_module
from etherws.server import ports as ports_module
from etherws.server.port import CHANGES, ClientKey, Port, State
from etherws.server.ports import Ports
from etherws.server.presence import UNKNOWN, Presence
from etherws.settings import DeviceSettings
from tests.lab.hosts import PATIENCE, Host
from tests.lab.sockets import gevent_pair
from tests.lab.turns import anothers_turn

ALICE, BOB, NAMELESS = ClientKey("alice"), ClientKey("bob"), ClientKey()
TOKEN = ClientKey(None, "t" * 22)
USUAL = Profile()


class Server:
    """The ports of one server in a machine of its own, and the sessions that use them."""

    def __init__(self, host: Host, *, bridge: str | None = "br0", resume_timeout: float = 1000.0) -> None:
        self.host = host
        self.ports = Ports(DeviceSettings(bridge=bridge), resume_timeout)
        self.evicted: list[Port] = []

    def join(self, client: ClientKey, profile: Profile = USUAL, *, stays: bool = False) -> Port:
        """A client comes; its session ends when it is told to, unless it `stays`."""
        found: list[Port] = []

        def evict() -> None:
            self.evicted += found
            if not stays:
                gevent.spawn(self.ports.free, found[0])

        port = self.ports.take(client, profile, evict)
        assert isinstance(port, Port)
        found.append(port)
        assert found[0].state is State.IN_USE
        return found[0]

    def names(self) -> set[str]:
        """The interfaces beside loopback and bridge."""
        return set(self.host.links()) - {"lo", "br0"}


@contextlib.contextmanager
def serving(host: Host, **options: object) -> Iterator[Server]:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        server = Server(host, **options)  # type: ignore[arg-type]
        try:
            yield server
        finally:
            server.ports.close()
        assert set(host.links()) == {"lo"}


@pytest.fixture
def server(host: Host) -> Iterator[Server]:
    """With a bridge; the ports of lost clients are kept for as long as the test takes."""
    with serving(host) as made:
        yield made


def test_who_is_ended_while_his_port_is_made_gets_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.join(BOB)
    make = server.ports._maker.new

    def new(*args: Any, **more: Any) -> Port:
        found = make(*args, **more)
        server.ports.gate.shut_out(["alice"], [], 60)
        return found

    monkeypatch.setattr(server.ports._maker, "new", new)
    with pytest.raises(Refused, match="has ended this client's tunnel"):
        server.join(ALICE)
    assert server.names() == {"ethws0"}


# One client after the other.


def test_the_first_port_is_there_before_its_client_and_after(server: Server) -> None:
    index = server.host.links()["ethws0"]["index"]
    port = server.join(NAMELESS)
    assert (port.tap.name, port.tap.index) == ("ethws0", index)
    server.ports.free(port)
    assert port.state is State.FREE
    assert server.host.links()["ethws0"]["index"] == index
    assert server.join(NAMELESS) is port


def test_a_further_client_gets_a_port_of_its_own_which_goes_with_it(server: Server) -> None:
    first, second = server.join(NAMELESS), server.join(NAMELESS)
    assert [port.tap.name for port in (first, second)] == ["ethws0", "ethws1"]
    server.ports.free(second)
    assert second.state is State.GONE
    assert server.names() == {"ethws0"}
    # Nothing happens to a port that is gone.
    server.ports.free(second)
    server.ports.park(second)
    assert second.state is State.GONE


def test_clients_that_come_at_once_get_ports_of_their_own(server: Server) -> None:
    coming = [gevent.spawn(server.join, NAMELESS) for _ in range(5)]
    gevent.joinall(coming, raise_error=True)
    assert {client.get().tap.name for client in coming} == {f"ethws{number}" for number in range(5)}


def test_without_a_bridge_there_is_one_port(host: Host) -> None:
    with serving(host, bridge=None) as server:
        port = server.join(TOKEN)
        with pytest.raises(NoPort, match="ip link set ethws0 master br0"):
            server.join(ClientKey(None, "u" * 22))
        # Lost: rather another client than none.
        server.ports.park(port)
        assert port.state is State.PARKED
        assert server.join(ClientKey(None, "u" * 22)) is port
        assert not server.evicted


def test_device_bridge_and_mtu_are_the_profiles(server: Server) -> None:
    own = server.join(ALICE, Profile(device="alice", mtu=1400))
    assert own.tap.name == "alice"
    assert server.host.links()["alice"].get("mtu") == 1400
    # That name is taken now.
    assert server.join(BOB, Profile(device="alice")).tap.name == "alice0"
    elsewhere = server.join(NAMELESS, Profile(bridge="br-lab"))
    links = server.host.links()
    assert links[elsewhere.tap.name].get("master") == links["br-lab"]["index"]
    # The first port is still free for a client without such wishes.
    assert server.join(NAMELESS).tap.name == "ethws0"
    server.ports.free(elsewhere)
    server.host.delete_link("br-lab")


def test_what_cannot_be_made_leaves_nothing(server: Server) -> None:
    with pytest.raises(DeviceError, match="cannot create lo"):
        server.join(ALICE, Profile(device="lo"))
    with pytest.raises(DeviceError, match="put ethws1 into lo"):
        server.join(ALICE, Profile(bridge="lo"))
    assert server.names() == {"ethws0"}


# A client that comes again.


def test_a_lost_client_gets_its_port_back(server: Server) -> None:
    server.join(BOB)
    port = server.join(ALICE)
    server.ports.park(port)
    assert (port.state, port.evict) == (State.PARKED, None)
    # Others get others.
    assert server.join(NAMELESS).tap.name == "ethws2"
    assert server.join(ALICE) is port
    assert (port.state, port.timer) == (State.IN_USE, None)
    assert not server.evicted


def test_a_client_that_returns_while_its_old_session_still_ends_gets_its_port(server: Server) -> None:
    port = server.join(TOKEN)
    assert server.join(TOKEN) is port
    assert server.evicted == [port]
    # The end of the old session changes nothing for the new one.
    gevent.idle()
    assert port.state is State.IN_USE
    assert server.names() == {"ethws0"}


def test_an_old_session_that_is_lost_while_it_is_told_to_end_parks_the_port_for_the_new_one(server: Server) -> None:
    server.join(BOB)

    def leave() -> None:
        gevent.spawn(server.ports.park, port)

    port = server.ports.take(TOKEN, USUAL, leave)
    assert server.join(TOKEN) is port
    gevent.idle()
    assert (port.state, port.timer) == (State.IN_USE, None)


def test_a_session_that_does_not_end_keeps_its_port(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_module, "EVICT_TIMEOUT", 0.01)
    port = server.join(TOKEN, stays=True)
    with pytest.raises(NoPort, match="ethws0 is still in use by a session that was told to end"):
        server.join(TOKEN)
    assert port.state is State.IN_USE
    server.ports.free(port)
    assert server.join(TOKEN) is port


def test_one_connection_too_many_takes_the_oldest_port_of_its_identity(server: Server) -> None:
    two = Profile(connections=2)
    oldest, newer = server.join(ALICE, two), server.join(ALICE, two)
    assert server.join(ALICE, two) is oldest
    assert server.evicted == [oldest]
    # A parked one first.
    server.ports.park(oldest)
    assert server.join(ALICE, two) is oldest
    assert server.evicted == [oldest]
    assert server.join(ALICE, two) is newer


def test_clients_that_take_a_port_from_each_other_again_and_again_are_told(server: Server) -> None:
    port = server.join(ALICE)
    for _ in range(CHANGES):
        assert server.join(ALICE) is port
    with pytest.raises(NoPort, match="several clients call themselves 'alice' and take ethws0 from each other"):
        server.join(ALICE)
    assert port.state is State.IN_USE
    # The count is not the next client's.
    server.ports.free(port)
    assert server.join(ALICE) is port
    assert server.join(ALICE) is port


def test_a_client_whose_profile_has_changed_gets_another_port(server: Server) -> None:
    server.join(BOB)
    port = server.join(ALICE)
    changed = server.join(ALICE, Profile(device="alice0"))
    assert (port.state, changed.tap.name) == (State.GONE, "alice0")
    assert server.names() == {"ethws0", "alice0"}


# Ports that are kept.


def test_a_port_is_kept_for_so_long(host: Host) -> None:
    with serving(host, resume_timeout=0.01) as server:
        first, second = server.join(BOB), server.join(ALICE)
        for port in (first, second):
            server.ports.park(port)
        # The kernel removes the interface some time after the port is gone.
        while server.names() != {"ethws0"}:
            gevent.sleep(0.005)
        assert (first.state, second.state) == (State.FREE, State.GONE)


def test_nothing_is_kept_for_a_client_that_cannot_come_back(server: Server) -> None:
    first, second = server.join(NAMELESS), server.join(NAMELESS)
    for port in (first, second):
        server.ports.park(port)
    assert [port.state for port in (first, second)] == [State.FREE, State.GONE]


def test_without_a_resume_timeout_nothing_is_kept(host: Host) -> None:
    with serving(host, resume_timeout=0.0) as server:
        port = server.join(ALICE)
        server.ports.park(port)
        assert port.state is State.FREE


def test_the_port_that_has_been_kept_longest_makes_room(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports_module, "PARKED_MAX", 2)
    server.join(NAMELESS)
    kept = [server.join(ClientKey(name)) for name in ("alice", "bob", "carol")]
    for port in (kept[1], kept[0], kept[2]):
        server.ports.park(port)
    assert [port.state for port in kept] == [State.PARKED, State.GONE, State.PARKED]


def fill_bridge(server: Server, monkeypatch: pytest.MonkeyPatch, ports: int) -> None:
    """The server's bridge is full with so many ports."""
    send_all = links.send_all

    def full(requests: Sequence[bytes]) -> list[OSError | None]:
        # The new one is there, but in no bridge yet.
        refused = len(server.names()) > ports
        return [OSError(errno.EXFULL, "full") for _ in requests] if refused else send_all(requests)

    monkeypatch.setattr(links, "send_all", full)


def test_a_port_that_is_kept_goes_for_a_client_that_finds_the_bridge_full(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, kept, stays = (server.join(ClientKey(name, name * 22)) for name in "abc")
    fill_bridge(server, monkeypatch, 3)
    with pytest.raises(DeviceError, match="a Linux bridge has 1,023 ports at most"):
        server.join(ALICE)
    server.ports.park(kept)
    assert server.join(ALICE).tap.name == "ethws1"
    assert [port.state for port in (first, kept, stays)] == [State.IN_USE, State.GONE, State.IN_USE]


def test_who_finds_the_bridge_full_gets_the_first_port_if_that_is_kept(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, kept = (server.join(ClientKey(name, name * 22)) for name in "ab")
    fill_bridge(server, monkeypatch, 2)
    server.ports.park(first)
    server.ports.park(kept)
    # All come from one address: the one that has been kept longest goes.
    assert server.join(ALICE) is first
    assert kept.state is State.PARKED
    # The first port is of no use to who wants an interface of another name.
    server.ports.park(first)
    assert server.join(BOB, Profile(device="else%d")).tap.name == "else0"
    assert [port.state for port in (first, kept)] == [State.PARKED, State.GONE]


def test_the_fiftieth_port_takes_as_many_messages_to_the_kernel_as_the_fifth(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent, ours = 0, gevent.getcurrent()
    request_socket = links.request_socket

    def counted() -> Any:
        nonlocal sent
        # Who is told of changes asks as well, for many ports at once.
        sent += gevent.getcurrent() is ours
        return request_socket()

    monkeypatch.setattr(links, "request_socket", counted)
    costs = []
    for number in range(50):
        before = sent
        server.join(ClientKey(f"client {number}", f"{number:022}"))
        costs.append(sent - before)
    # Where the bridge is, the first port's MTU, the new port's index, and what it is to be.
    assert set(costs[1:]) == {4}


# TAPs that somebody deletes.


def test_a_deleted_first_port_is_made_anew(server: Server) -> None:
    port = server.join(ALICE)
    server.host.delete_link("ethws0")
    # Not kept: it does not exist any more.
    server.ports.park(port)
    assert (port.state, server.names()) == (State.GONE, {"ethws0"})
    again = server.join(ALICE)
    assert again is not port
    server.ports.free(again)
    server.host.delete_link("ethws0")
    assert server.join(BOB).tap.alive()


@pytest.mark.parametrize("name", ["ethws0", "ethws1"])
def test_a_kept_port_that_is_deleted_is_not_given_back(server: Server, name: str) -> None:
    if name == "ethws1":
        server.join(BOB)
    port = server.join(ALICE)
    server.ports.park(port)
    server.host.delete_link(name)
    again = server.join(ALICE)
    assert (port.state, again.tap.name, again.tap.alive()) == (State.GONE, name, True)


def test_a_first_port_that_cannot_be_made_anew_is_an_error_once(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    with serving(host, resume_timeout=0.01) as server:
        port = server.join(ALICE)
        server.ports.park(port)
        host.delete_link("br0")
        # What has the name now is no bridge. A bridge that is only gone is waited for: test_port_maker.py.
        with host.netlink() as route:
            route.link("add", ifname="br0", kind="veth", peer="br0-far")
        host.delete_link("ethws0")
        while "into br0: " not in caplog.text:
            gevent.sleep(0.005)
        assert port.state is State.FREE
        with pytest.raises(DeviceError, match=r"into br0: .* it is no bridge"):
            server.join(BOB)
        assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1
        host.delete_link("br0")
        host.bridge("br0")
        assert server.join(BOB).tap.alive()
        # This one is not the server's own, which would not remove it.
        host.delete_link("br0")


# Rules.


def test_the_first_packet_puts_the_rules_in_and_the_next_ones_go_straight_to_the_tap(server: Server) -> None:
    port = server.join(ALICE, Profile(macs=1))
    assert (port.filter.state, nftables.table_handles()) == (FilterState.ABSENT, {})
    sink = port.sink()
    sink.write_batch([])
    assert port.filter.state is FilterState.USED
    assert nftables.table_handles().keys() == {"etherws-ethws0"}
    assert sink.write_batch == port.tap.write_batch


def test_no_packet_passes_where_the_rules_cannot_be_put_in(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.join(ALICE)
    sink = port.sink()
    written: list[object] = []
    monkeypatch.setattr(port.tap, "write_batch", written.append)
    with monkeypatch.context() as broken:
        broken.setattr(nftables.Table, "install", lambda table: (_ for _ in ()).throw(OSError(22, "no")))
        for _ in range(2):
            with pytest.raises(DeviceError, match="cannot filter what comes in by ethws0"):
                sink.write_batch([b"packet"])
    assert not written
    sink.write_batch([b"packet"])
    assert written == [[b"packet"]]


def test_a_client_whose_rules_cannot_be_put_in_gets_no_port(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(host, bridge=None) as server:
        with pytest.raises(DeviceError, match="--bridge"):
            server.join(ALICE, Profile(isolated=True))
        host.bridge("br0", "ethws0")
        first = server.join(BOB)
        assert first.tap.name == "ethws0"
        monkeypatch.setattr(interfaces, "set_rate", _refuse)
        with pytest.raises(DeviceError, match="does not allow that"):
            server.join(ALICE, Profile(rate_down=10**6))
        assert server.names() == {"ethws0"}
        host.delete_link("br0")


def test_an_error_that_nobody_expects_leaves_no_port_in_use(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(index: int, rate: int | None) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(interfaces, "set_rate", no_memory)
        with pytest.raises(MemoryError):
            server.join(ALICE, Profile(rate_down=10**6))
    assert server.ports.first.state is State.FREE
    assert server.join(ALICE).tap.name == "ethws0"


def _refuse(index: int, rate: int | None) -> None:
    if rate is not None:
        raise DeviceError("its driver or the kernel does not allow that")


def test_the_rules_of_the_client_before_are_replaced_at_once_or_kept(server: Server) -> None:
    port = server.join(ALICE, Profile(rate_down=10**7))
    before = nftables.table_handles()
    server.ports.free(port)
    # The same, and no frame has passed.
    server.join(BOB, Profile(rate_down=10**7))
    assert nftables.table_handles() == before
    server.ports.free(port)
    server.join(NAMELESS)
    assert nftables.table_handles() != before


def test_a_returning_client_keeps_its_rules(server: Server) -> None:
    port = server.join(TOKEN)
    port.sink().write_batch([])
    before = nftables.table_handles()
    server.ports.park(port)
    server.join(TOKEN).sink().write_batch([])
    assert nftables.table_handles() == before
    server.ports.free(port)
    server.join(NAMELESS).sink().write_batch([])
    assert nftables.table_handles() != before


def test_a_kernel_that_cannot_filter_refuses_before_anybody_is_sent_away(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot() -> None:
        raise DeviceError("cannot filter what clients send")

    monkeypatch.setattr(port_tables, "check", cannot)
    with serving(host) as server:
        port = server.join(ALICE)
        with pytest.raises(DeviceError, match="cannot filter what clients send"):
            server.join(ALICE, Profile(macs=2))
        assert (port.state, server.evicted) == (State.IN_USE, [])
        port.sink().write_batch([])
        assert not nftables.table_handles()


# The end.


def test_a_server_that_stops_removes_every_port_and_refuses_clients(server: Server) -> None:
    used, parked = server.join(NAMELESS), server.join(ALICE)
    used.sink().write_batch([])
    parked.sink().write_batch([])
    server.ports.park(parked)
    server.ports.close()
    assert [port.state for port in (used, parked)] == [State.GONE, State.GONE]
    assert not nftables.table_handles()
    with pytest.raises(NoPort, match="stopping"):
        server.join(BOB)
    # For the fixture, which closes it too.
    server.ports = Ports(DeviceSettings(bridge="br0"))


def test_sessions_that_end_while_the_server_stops_do_not_disturb_it(server: Server) -> None:
    used = [server.join(NAMELESS) for _ in range(4)]
    ends: list[gevent.Greenlet[..., None]] = [gevent.spawn(server.ports.close)]
    ends += [gevent.spawn(server.ports.free, port) for port in used]
    gevent.joinall(ends, raise_error=True)
    assert {port.state for port in used} == {State.GONE}
    assert server.names() == set()
    server.ports = Ports(DeviceSettings(bridge="br0"))


@pytest.mark.parametrize("fails", [False, True])
def test_a_client_whose_rules_are_put_in_while_the_server_stops_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    server.join(NAMELESS)

    def stop(index: int, rate: int | None) -> None:
        if rate:
            server.ports.close()
        if fails:
            raise DeviceError("the server is stopping, and the interface is gone")

    monkeypatch.setattr(interfaces, "set_rate", stop)
    with pytest.raises(DeviceError if fails else NoPort, match="the server is stopping"):
        server.join(NAMELESS, Profile(rate_down=10**6))
    server.ports = Ports(DeviceSettings(bridge="br0"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (State.FREE, State.FREE),
        (State.FREE, State.PARKED),
        (State.IN_USE, State.IN_USE),
        (State.PARKED, State.PARKED),
        *((State.GONE, state) for state in State),
    ],
)
def test_other_changes_are_faults(server: Server, before: State, after: State) -> None:
    port = server.join(NAMELESS)
    port.state = before
    with pytest.raises(AssertionError, match=f"ethws0: a port that is {before.value} cannot be {after.value}"):
        port.become(after)
    port.state = State.IN_USE


def test_other_rules_apply_to_a_port_in_use_and_to_a_parked_one(server: Server) -> None:
    port = server.join(ALICE)
    # Before the first frame nothing is put in.
    server.ports.apply(port, Profile(macs=2))
    assert port.filter.applied is None
    port.sink().write_batch([])
    for macs in (3, 4):
        server.ports.apply(port, Profile(macs=macs))
        assert port.filter.state is FilterState.USED
        assert port.filter.applied is not None
        assert port.filter.applied.rules.macs == macs
        # The same rules once more are no change.
        applied = port.filter.applied
        server.ports.apply(port, Profile(macs=macs, connections=2))
        assert port.filter.applied is applied
    server.ports.park(port)
    server.ports.apply(port, Profile(macs=5))
    assert port.filter.applied is not None
    assert port.filter.applied.rules.macs == 5
    # It is the port that its client finds again.
    assert server.join(ALICE, Profile(macs=5)) is port


def test_rules_that_cannot_be_applied_leave_none(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.join(ALICE)
    port.sink().write_batch([])

    def fails(index: int, rate: int | None) -> None:
        if rate:
            raise DeviceError("no such qdisc")

    monkeypatch.setattr(interfaces, "set_rate", fails)
    with pytest.raises(DeviceError, match="no such qdisc"):
        server.ports.apply(port, Profile(rate_down=10**6))
    assert port.filter.state is FilterState.ABSENT


# Many that come at once.


def become_true(condition: Callable[[], object]) -> None:
    """Let other greenlets run until `condition()` is true. The fixture bounds the time."""
    while not condition():
        gevent.sleep(0.001)


class Order:
    """Clients that come while another one's port is being made, and the order in which they get theirs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.order: list[str] = []
        self.greenlets: list[gevent.Greenlet[..., None]] = []

    def come(self, source: str, count: int = 1, presence: Presence = UNKNOWN) -> None:
        for _ in range(count):
            self.greenlets.append(gevent.spawn(self._take, source, presence))
        gevent.sleep(0)

    def _take(self, source: str, presence: Presence) -> None:
        self.server.ports.take(ClientKey(address=source), USUAL, lambda: None, presence)
        self.order.append(source)

    def join(self) -> None:
        gevent.joinall(self.greenlets)


def test_an_honest_client_waits_for_one_port_of_a_crowd(server: Server) -> None:
    order = Order(server)
    with anothers_turn("stranger"):
        order.come("stranger", 20)
        order.come("honest")
    order.join()
    assert order.order.index("honest") <= 1
    assert len(order.order) == 21


def test_no_port_is_made_for_a_client_that_hung_up_while_it_waited(server: Server) -> None:
    order = Order(server)
    ours, its = gevent_pair()
    with anothers_turn():
        order.come("gone", presence=Presence(ours))
        order.come("here")
        its.close()
        # It leaves the queue at once, while the turn of another lasts.
        with pytest.raises(ClientGone):
            order.greenlets[0].get()
    order.join()
    assert order.order == ["here"]
    assert server.names() == {"ethws0"}
    ours.close()


def test_nobody_waits_while_a_session_is_ended_for_another(server: Server) -> None:
    port = server.join(ALICE, stays=True)
    coming = gevent.spawn(server.join, ALICE)
    gevent.sleep(0)
    become_true(lambda: server.evicted)
    assert server.join(BOB) is not port
    server.ports.free(port)
    assert coming.get() is port
    assert port.heir is None


@pytest.mark.parametrize("how", ["free", "park"])
def test_a_client_that_hung_up_leaves_the_port_whose_session_ended_for_it(server: Server, how: str) -> None:
    server.join(BOB)
    port = server.join(ALICE, stays=True)
    ours, its = gevent_pair()

    def take() -> None:
        server.ports.take(ALICE, USUAL, lambda: None, Presence(ours))

    coming = gevent.spawn(take)
    become_true(lambda: port.heir)
    its.close()
    with pytest.raises(ClientGone):
        coming.get()
    assert port.heir is None
    getattr(server.ports, how)(port)
    assert port.state is (State.GONE if how == "free" else State.PARKED)
    ours.close()


def test_a_port_that_was_freed_for_a_client_that_then_hung_up_is_removed(server: Server) -> None:
    server.join(BOB)
    port = server.join(ALICE, stays=True)
    ours, its = gevent_pair()
    coming = gevent.spawn(server.ports.take, ALICE, USUAL, lambda: None, Presence(ours))
    become_true(lambda: port.heir)
    with anothers_turn():
        server.ports.free(port)
        # It waits for its turn now, to take what it was promised.
        gevent.sleep(0)
        assert (port.state, port.heir) == (State.FREE, ALICE)
        its.close()
        become_true(lambda: port.heir is None)
    with pytest.raises(ClientGone):
        coming.get()
    assert port.state is State.GONE
    ours.close()


def test_the_first_port_is_kept_for_who_had_its_session_ended(server: Server) -> None:
    port = server.join(ALICE, stays=True)
    coming = gevent.spawn(server.join, ALICE)
    become_true(lambda: port.heir)
    with anothers_turn():
        server.ports.free(port)
        others = gevent.spawn(server.join, NAMELESS)
        gevent.sleep(0)
    assert coming.get() is port
    assert others.get() is not port


def test_the_names_of_ports_are_not_tried_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    device = pytun.TunTapDevice

    def opened(name: str, flags: int) -> pytun.TunTapDevice:
        tried.append(name)
        return device(name=name, flags=flags)

    monkeypatch.setattr(pytun, "TunTapDevice", opened)
    for _ in range(5):
        server.join(NAMELESS)
    assert tried == [f"ethws{number}" for number in range(1, 5)]


# Interfaces that stay when we go.


def test_a_persistent_interface_keeps_what_its_owner_gave_it_and_loses_what_we_did(host: Host) -> None:
    for name in ("ethws0", "alice0"):
        host.command(f"ip tuntap add {name} mode tap")
    host.bridge("br0", "alice0")
    rules = Profile(macs=2, drop=frozenset({"bpdu"}), rate_down=10**7, isolated=True, device="alice0", mtu=1400)
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        ports = Ports(DeviceSettings(bridge="br0"))
        first, second = (
            ports.take(client, profile, lambda: None) for client, profile in ((BOB, USUAL), (ALICE, rules))
        )
        for port in (first, second):
            port.filter.arm()
        assert set(nftables.table_handles()) == {"etherws-ethws0", "etherws-alice0"}
        ports.close()
        assert not nftables.table_handles()
        links = host.links()
        for name in ("ethws0", "alice0"):
            assert links[name].get("master") == links["br0"]["index"]
            assert not interfaces.is_isolated(links[name]["index"])
            assert not interfaces.has_rate(links[name]["index"], 10**7)
        assert links["alice0"].get("mtu") == 1400


# Interfaces in another network namespace.


def test_a_first_port_that_is_away_is_for_clients_without_rules(server: Server) -> None:
    rules = Profile(drop=frozenset({"bpdu"}))
    with contextlib.closing(Host()) as guest:
        with server.host.netlink() as route:
            index = route.link_lookup(ifname="ethws0")[0]
            route.link("set", index=index, net_ns_fd=guest.namespace.fileno())
        port = server.join(ALICE, rules)
        assert port.tap.locate() == server.host.links()[port.tap.name]["index"]
        port.filter.arm()
        first = server.join(BOB)
        assert first.tap.locate() is None
        first.filter.arm()
        assert (first.tap.name, set(guest.links())) == ("ethws0", {"lo", "ethws0"})
        # It comes to need rules while it is there.
        with pytest.raises(DeviceError, match="ethws0 is in another network namespace"):
            server.ports.apply(first, rules)
        server.ports.park(first)
        assert server.join(BOB, rules).tap.locate() is not None
