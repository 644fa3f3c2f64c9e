"""What is shown of a server, and what an operator does to its clients: real ports, and sessions that are functions."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from etherws.access.policy import Profile
from etherws.counters import Totals, Values
from etherws.errors import ConnectionClosed, EtherwsError, NoSuchClient, Refused
from etherws.events import DRAIN, KICK, event_of
from etherws.kernel import bridge_tables
from etherws.kernel.loops import Loop
from etherws.observe.subject import Subject
from etherws.server import dismissal, lan_warnings
from etherws.server.member import Member
from etherws.server.observed import UNKNOWN, About, Counted, ObservedServer, policy_values
from etherws.server.port import ClientKey, Port, State
from etherws.server.ports import Ports
from etherws.settings import DeviceSettings
from etherws.tunnel.offloads import Offload
from etherws.tunnel.wire import VNET_BYTES
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import PATIENCE, Host
from tests.lab.lan import source

USUAL = Profile()

#: Who asks for a kick or a drain.
DOOR = "the control socket"


def key(identity: str | None, address: str = "192.0.2.1", token: str | None = None, proxy: str = "") -> ClientKey:
    """A client; one letter is a token."""
    return ClientKey(identity, token and token * 22, address, proxy)


class Inside:
    """Knows nothing of sessions but what a test has put in."""

    def __init__(self) -> None:
        self.counted = Counted()
        self.own: dict[Port | Member, Values] = {}

    def count(self) -> Counted:
        return self.counted

    def workers(self) -> list[Values]:
        return self.counted.workers

    def look(self) -> Callable[[Port | Member], Values]:
        return lambda port: {"worker": None, **self.own.get(port, {})}

    def history(self, port: Port | Member) -> Values:
        return {"sent": [port.tap.index]}


class Server:
    """The ports of a server, whose sessions end as soon as they are told to, as server/tunnels.py has them end."""

    def __init__(self) -> None:
        self.ports = Ports(DeviceSettings(bridge="br0"), 1000.0)
        self.inside = Inside()
        self.told: list[str] = []
        self.ended: list[tuple[str | None, EtherwsError]] = []
        about = About("lan", "wss://*:443/", lambda: self.told.append("reload"), lambda: self.told.append("stop"))
        self.observed = ObservedServer(self.ports, self.inside, about)

    def join(
        self,
        client: ClientKey,
        profile: Profile = USUAL,
        *,
        hangs: bool = False,
        stays: bool = False,
        begun: bool = True,
    ) -> Port:
        """A client comes. One whose session `hangs` does not end until it is evicted, and not even then if it `stays`;
        one that has not `begun` has no session yet."""
        found: list[Port] = []

        def evict() -> None:
            if not stays:
                self._end(found[0], ConnectionClosed("evicted", 1008))

        port = self.ports.take(client, profile, evict)
        assert isinstance(port, Port)
        found.append(port)
        if begun and not hangs:
            self.begin(port)
        elif hangs:
            port.on_failure(lambda reason: None)
        return port

    def begin(self, port: Port) -> None:
        """The session begins."""
        port.on_failure(lambda reason: self._end(port, reason))

    def _end(self, port: Port, reason: EtherwsError) -> None:
        self.ended.append((port.client.identity, reason))
        code = getattr(reason, "code", None)
        gevent.spawn(self.ports.park if code in (None, 1012) else self.ports.free, port)

    def shown(self) -> dict[str | None, Values]:
        """The sessions, by identity."""
        return {each["identity"]: each for each in self.observed.sessions()}


@pytest.fixture
def server(host: Host) -> Iterator[Server]:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        made = Server()
        try:
            yield made
        finally:
            made.ports.close()


def until(condition: Callable[[], object]) -> None:
    while not condition():
        gevent.sleep(0.001)


def test_it_fits_what_reads_it(server: Server) -> None:
    subject: Subject = server.observed
    assert subject.role == "server"


def test_the_overview(server: Server) -> None:
    workers = [{"pid": 7, "sessions": 1, "answers": True}]
    server.inside.counted = Counted(Totals(joins=3, leaves=1), {"policy": 2}, workers)
    values = server.observed.overview()
    assert (values["name"], values["device"], values["bridge"]) == ("lan", "ethws0", "br0")
    assert (values["listen"], values["state"], values["schema"]) == ("wss://*:443/", "serving", 1)
    assert values["refusals"] == {"policy": 2}
    assert values["workers"] == workers
    assert (values["totals"]["joins"], values["totals"]["leaves"]) == (3, 1)
    assert server.observed.totals() == values["totals"]
    assert values["started"] <= values["now"] <= time.time()


def test_a_session_is_shown_with_its_port(server: Server, host: Host) -> None:
    server.join(key("bob"))
    port = server.join(key("alice", proxy="198.51.100.1"), Profile(rate_up=10_000_000))
    # Its own part.
    server.inside.own[port] = {"wire": 2, "drops": {"queue late": 2}, "worker": 7}
    values = server.shown()["alice"]
    assert (values["address"], values["proxy"], values["device"]) == ("192.0.2.1", "198.51.100.1", "ethws1")
    assert (values["index"], values["bridge"], values["worker"]) == (port.tap.index, "br0", 7)
    assert (values["wire"], values["reconnects"], values["macs"]) == (2, 0, [])
    assert values["policy"]["rate_up"] == 10_000_000
    # Of another, nothing is known, and all keys are there.
    assert UNKNOWN.items() <= server.shown()["bob"].items()
    assert server.shown()["bob"].keys() == values.keys()
    assert [each["identity"] for each in server.observed.sessions()] == ["bob", "alice"]
    # Somebody renames it.
    host.set_link("ethws1", ifname="tenant")
    assert server.shown()["alice"]["device"] == "tenant"


def test_machines_and_drops_are_the_kernels(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.join(key("alice"), Profile(macs=1))
    sink = port.sink()
    for number in (1, 2, 3):
        sink.write_batch([bytes(VNET_BYTES) + frame(60, to=BROADCAST, source=source(number))])
    server.inside.own[port] = {"drops": {"source-address": 1}}
    values = server.shown()["alice"]
    assert values["macs"] == [source(1).hex(":")]
    assert values["drops"] == {"source-address": 3}
    assert server.observed.overview()["totals"]["drops"] == {"source-address": 2}


def test_a_parked_port_is_shown_with_the_time_that_is_left(server: Server) -> None:
    port = server.join(key("alice"))
    server.ports.park(port)
    assert not list(server.observed.sessions())
    (parked,) = server.observed.parked()
    assert (parked["identity"], parked["index"], parked["bridge"]) == ("alice", port.tap.index, "br0")
    assert 900 < parked["left"] <= 1000
    # Nothing but what is left changes from look to look: whatever else changed would be sent to each page again.
    again = [*server.observed.parked(), *server.observed.parked()]
    assert all(each | {"left": 0} == parked | {"left": 0} for each in again)
    assert abs(parked["until"] - parked["since"] - 1000) < 1e-6


def test_when_a_session_began_stays_the_same_from_look_to_look(server: Server) -> None:
    server.join(key("alice"))
    assert len({server.shown()["alice"]["since"] for _ in range(20)}) == 1


def test_how_often_a_client_got_its_port_back(server: Server) -> None:
    token = key("alice", token="a")
    port = server.join(token)
    for _ in range(2):
        server.ports.park(port)
        assert server.join(token) is port
    assert server.shown()["alice"]["reconnects"] == 2
    # Before the server has noticed that it was lost.
    assert server.join(token) is port
    assert server.shown()["alice"]["reconnects"] == 3
    # Another one of the same name takes it over.
    assert server.join(key("alice", token="b")) is port
    assert server.shown()["alice"]["reconnects"] == 0
    # It has left, and is back: that is no reconnect.
    server.ports.free(port)
    server.join(key("alice", token="b"))
    assert server.shown()["alice"]["reconnects"] == 0


def test_a_session_of_others_has_no_history(server: Server) -> None:
    port = server.join(key("alice"))
    assert server.observed.history(port.tap.index) == {"sent": [port.tap.index]}
    with pytest.raises(NoSuchClient, match="index 4711"):
        server.observed.history(4711)


def test_reload_and_stop_are_passed_on(server: Server) -> None:
    server.observed.reload()
    assert server.observed.not_ready() == ""
    server.observed.stop()
    assert server.told == ["reload", "stop"]
    assert server.observed.overview()["state"] == "stopping"
    assert server.observed.not_ready() == "it is stopping"


def test_it_is_not_ready_if_no_worker_answers(server: Server) -> None:
    server.inside.counted.workers = [{"pid": 7, "sessions": 1, "answers": False}]
    assert server.observed.not_ready() == "none of its workers answers"


def test_the_values_of_a_policy_are_bounded() -> None:
    many = frozenset(f"02:00:00:00:00:{number:02x}" for number in range(100))
    values = policy_values(Profile(macs=many, drop=frozenset({"bpdu"})))
    assert len(values["macs"]) == 64
    assert values["macs_more"] == 36
    assert values["drop"] == ["bpdu"]
    assert "connect" not in values


# What is wrong with the LAN. Each look asks anew.


def warnings(server: Server) -> list[str]:
    server.observed._warnings._shared._until = server.observed._tables._shared._until = 0.0
    found: list[str] = server.observed.overview()["warnings"]
    return found


def test_a_port_in_another_bridge_than_was_named_is_warned_of(server: Server, host: Host) -> None:
    server.join(key("alice"))
    server.join(key("bob"))
    assert warnings(server) == []
    host.bridge("br1")
    host.set_link("ethws1", master=host.links()["br1"]["index"])
    told = "ethws1 (192.0.2.1 as 'bob') is in {}, and not in br0: ip link set ethws1 up master br0"
    assert warnings(server) == [told.format("br1")]
    host.set_link("ethws1", master=0)
    assert warnings(server) == [told.format("no bridge")]


def test_without_a_named_bridge_a_port_belongs_where_most_are(server: Server, host: Host) -> None:
    for name in ("alice", "bob", "carol"):
        port = server.join(key(name))
        port.origin = port.origin._replace(bridge=None)
    host.set_link("ethws0", master=0)
    (told,) = warnings(server)
    assert "ethws0 (192.0.2.1 as 'alice') is in no bridge, and not in br0, where most ports of this server are" in told


def test_a_bridge_that_is_down_is_one_warning(server: Server, host: Host) -> None:
    server.join(key("alice"))
    server.join(key("bob"))
    host.set_link("br0", state="down")
    assert warnings(server) == ["br0 is down, so nothing passes between its ports: ip link set br0 up"]
    host.set_link("br0", state="up")
    host.set_link("ethws1", state="down")
    assert warnings(server) == ["ethws1 (192.0.2.1 as 'bob') is down: ip link set ethws1 up"]


def test_a_port_that_spanning_tree_keeps_closed_is_warned_of(server: Server, host: Host) -> None:
    port = server.join(key("alice"))
    # As a session begins.
    port.tap.begin(offload=Offload.NONE)
    host.command("ip link set br0 type bridge stp_state 1")
    host.set_link("ethws0", state="down")
    host.set_link("ethws0", state="up")
    until(lambda: any("listening" in text for text in warnings(server)))
    assert warnings(server)[0].startswith(
        "ethws0 (192.0.2.1 as 'alice') is listening, so nothing passes there: spanning tree opens it"
    )


def test_a_loop_is_warned_of_until_it_is_over(server: Server) -> None:
    port = server.join(key("alice"))
    loop = Loop(4711, (port.tap.index, 4712), "02:00:00:00:00:01")
    server.ports.loops._warn(loop)
    (told,) = warnings(server)
    assert told == (
        "frames go in a loop between ethws0 (192.0.2.1 as 'alice') and interface 4712 (deleted) in interface 4711"
        " (deleted); the log says what to try"
    )
    server.ports.loops._told.pop(loop)
    # What this machine sends comes back to it.
    server.ports.loops._own_frames_came(4711, None)
    assert "what interface 4711 (deleted) itself sends comes back to it" in warnings(server)[0]
    server.ports.loops._told_of.clear()
    server.ports.loops._own_frames_came(port.tap.index, None)
    assert "192.0.2.1 as 'alice' sends frames from the address of ethws0 itself" in warnings(server)[0]


def test_sessions_whose_mtus_differ_are_warned_of_and_bounded(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lan_warnings, "WARNINGS_MAX", 2)
    for number in range(5):
        port = server.join(key(f"client-{number}\x1b"))
        server.inside.own[port] = {"peer_mtu": 9000 if number else 1500}
    told = warnings(server)
    assert told[0].startswith(
        "the MTUs differ: 1500 at ethws1 here, 9000 at the interface of 192.0.2.1 as 'client-1?'."
    )
    assert (len(told), told[-1]) == (3, "and 2 more")


def test_the_kernel_is_asked_once_for_all_ports(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    real = bridge_tables._answer

    def counting(*request: Any) -> list[bytes]:
        asked.append(request)
        return real(*request)

    monkeypatch.setattr(bridge_tables, "_answer", counting)
    for number in range(5):
        server.inside.own[server.join(key(f"client-{number}"))] = {"peer_mtu": 1500}
    for _ in range(3):
        server.observed.overview()
    # What is behind the ports of br0, and how they are.
    assert len(asked) == 2


# What an operator does.


def test_a_kick_ends_the_session_with_1008_and_says_why(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "etherws")
    server.join(key("alice"))
    server.join(key("bob"))
    assert server.observed.kick("alice", 0, DOOR) == ["192.0.2.1 as 'alice'"]
    ((identity, reason),) = server.ended
    assert isinstance(reason, ConnectionClosed)
    assert (identity, reason.code, reason.tell) == ("alice", 1008, "ended by the operator")
    until(lambda: set(server.shown()) == {"bob"})
    (kick,) = [event for event in map(event_of, caplog.records) if event.kind == KICK]
    assert (kick.fields["client"], kick.fields["count"]) == ("alice", 1)
    # One line says who has asked, and what is done.
    (line,) = [record.getMessage() for record in caplog.records if event_of(record).kind == KICK]
    assert line == "asked by the control socket: the operator ends the tunnel of 192.0.2.1 as 'alice'"
    # Without a time, it may come back at once.
    server.join(key("alice"))


@pytest.mark.parametrize(
    ("said", "refused", "taken"),
    [
        # By its identity: whatever else it changes.
        ("alice", [key("alice", "203.0.113.9", "b")], [key("bob"), key(None, token="c")]),
        # By its address: whatever it calls itself.
        ("192.0.2.1", [key("carol"), key(None, token="c")], [key("alice", "203.0.113.9")]),
        # By its interface: the client that has it.
        ("ethws0", [key("alice", "203.0.113.9")], [key("bob")]),
    ],
)
def test_who_was_kicked_for_a_time_is_refused(
    server: Server, said: str, refused: list[ClientKey], taken: list[ClientKey]
) -> None:
    server.join(key("alice", token="a"))
    assert server.observed.kick(said, 600, DOOR) == ["192.0.2.1 as 'alice'"]
    for client in refused:
        with pytest.raises(Refused, match="may join again in 600 s") as error:
            server.join(client)
        assert (error.value.status, error.value.headers) == ("403 Forbidden", [("Retry-After", "600")])
    for client in taken:
        server.join(client)


def test_an_ipv6_address_is_the_same_however_it_is_written(server: Server) -> None:
    server.join(key(None, "2001:db8::1", "a"))
    assert server.observed.kick("2001:DB8:0::1", 60, DOOR) == ["2001:db8::1"]
    with pytest.raises(Refused):
        server.join(key(None, "2001:db8::2", "b"))
    with pytest.raises(NoSuchClient):
        server.observed.kick("not:an:address", 60, DOOR)


def test_an_interface_is_known_by_its_present_name(server: Server, host: Host) -> None:
    server.join(key("alice"))
    host.set_link("ethws0", ifname="tenant")
    assert server.observed.kick("tenant", 0, DOOR) == ["192.0.2.1 as 'alice'"]


@pytest.mark.parametrize("name", ["ethws0", "192.0.2.1"])
def test_a_name_that_means_two_clients_ends_neither(server: Server, name: str) -> None:
    server.join(key("alice", token="a"))
    server.join(key(name, "203.0.113.9", "b"))
    with pytest.raises(NoSuchClient, match="means several clients, and nothing was done; name one by another") as error:
        server.observed.kick(name, 60, DOOR)
    assert f"it is the identity of 203.0.113.9 as '{name}' on ethws1 and the" in str(error.value)
    assert str(error.value).endswith(" of 192.0.2.1 as 'alice' on ethws0")
    assert not server.ended
    assert server.ports.gate.shut_out_now == 0
    # Another name means one alone.
    assert server.observed.kick("ethws1", 0, DOOR) == [f"203.0.113.9 as '{name}'"]


def test_a_name_that_means_one_client_twice_is_enough(server: Server) -> None:
    two = Profile(connections=2)
    server.join(key("ethws0", token="a"), two)
    server.join(key("ethws0", token="b"), two)
    # The interface is one of the two.
    assert len(server.observed.kick("ethws0", 0, DOOR)) == 2


def test_all_sessions_and_parked_ports_of_a_client_go(server: Server) -> None:
    two = Profile(connections=3)
    for token in "abc":
        server.join(key("alice", token=token), two)
    lost = next(port for port in server.ports if port.client.resume == "c" * 22)
    server.ports.park(lost)
    assert len(server.observed.kick("alice", 0, DOOR)) == 3
    until(lambda: not server.shown() and not list(server.observed.parked()))


def test_a_client_that_waits_for_its_port_is_refused_as_well(server: Server) -> None:
    port = server.join(key("alice", token="a"), hangs=True, stays=True)
    waiting = gevent.spawn(server.join, key("alice", token="b"))
    until(lambda: port.heir)
    server.observed.kick("alice", 60, DOOR)
    server.ports.park(port)
    with pytest.raises(Refused):
        waiting.get()


def test_a_session_that_has_not_begun_ends_when_it_does(server: Server) -> None:
    port = server.join(key("alice"), begun=False)
    server.observed.kick("alice", 0, DOOR)
    assert not server.ended
    server.begin(port)
    assert str(server.ended[0][1]) == "ended by the operator"


def test_a_session_that_does_not_end_is_evicted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dismissal, "EVICT_TIMEOUT", 0.01)
    server.join(key("alice"), hangs=True)
    server.observed.kick("alice", 0, DOOR)
    until(lambda: not server.shown())
    assert str(server.ended[0][1]) == "evicted"


def test_a_port_that_is_parked_meanwhile_is_freed(server: Server) -> None:
    port = server.join(key("alice"), hangs=True)
    server.observed.kick("alice", 0, DOOR)
    # Its connection was lost at that moment.
    server.ports.park(port)
    until(lambda: port.state is State.FREE)


@pytest.mark.parametrize("said", ["nobody", "", "192.0.2.9", "ethws7", "\x1b[31m" + 10_000 * "x"])
def test_a_kick_of_nobody_is_an_error(server: Server, said: str) -> None:
    server.join(key("alice"))
    with pytest.raises(NoSuchClient) as error:
        server.observed.kick(said, 60, DOOR)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 400
    assert server.ports.gate.shut_out_now == 0


def test_a_drain_ends_the_sessions_evenly_and_lets_nobody_in(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "etherws")
    for number in range(4):
        server.join(key(f"client-{number}", token="a"))
    server.ports.park(server.join(key("lost", token="a")))
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        gevent.sleep(0)

    server.observed._dismissal._sleep = sleep
    server.observed.drain(3600, DOOR)
    assert server.observed.not_ready() == "it is draining"
    with pytest.raises(Refused, match="draining"):
        server.join(key("late"))
    until(lambda: not server.shown())
    # No time has passed meanwhile: of what is left, each takes its part.
    assert [round(pause / 100) for pause in pauses] == [9, 12, 18, 36]
    assert all(reason.code == 1012 and reason.tell == "draining" for _, reason in server.ended)  # type: ignore[attr-defined]
    # No port waits for a client that is elsewhere.
    until(lambda: not list(server.observed.parked()))
    assert server.observed.overview()["state"] == "draining"
    until(lambda: [event_of(record).kind for record in caplog.records].count(DRAIN) == 2)


def test_a_second_drain_sets_another_time(server: Server) -> None:
    server.join(key("alice"))
    server.observed.drain(3600, DOOR)
    gevent.sleep(0)
    assert server.shown()
    server.observed.drain(0, DOOR)
    until(lambda: not server.shown())


def test_kick_and_drain_at_once(server: Server) -> None:
    for number in range(3):
        server.join(key(f"client-{number}"))
    server.observed.drain(0, DOOR)
    with contextlib.suppress(NoSuchClient):
        server.observed.kick("client-0", 0, DOOR)
    until(lambda: not server.shown())
    assert len({identity for identity, _ in server.ended}) == 3


def test_a_hostile_name_is_shown_as_it_is_and_can_be_kicked(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "etherws")
    name = "\x1b[31m<script>alert(1)</script>\n\u202e" + 10_000 * "x"
    server.join(key(name))
    assert name in server.shown()
    labels = server.observed.kick(name, 60, DOOR)
    assert all(label.isprintable() and len(label) < 300 for label in labels)
    assert all(record.getMessage().isprintable() for record in caplog.records)


def test_many_are_shown_in_turns(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    found: Any = server.observed.sessions()
    assert iter(found) is found
    server.join(key("alice"))
    server.join(key("bob"))
    sessions = server.observed.sessions()
    assert next(sessions)["identity"] == "alice"
    # Others go on between two of them: one that has left meanwhile is not shown.
    server.observed.kick("bob", 0, DOOR)
    until(lambda: all(port.client.identity != "bob" or port.state is not State.IN_USE for port in server.ports))
    assert not list(sessions)
