"""What is lent to workers: links whose connections are at two of them, over real sockets and TAPs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from etherws.access.policy import Profile
from etherws.counters import Traffic
from etherws.errors import ChannelError, ConnectionClosed, DeviceError, NoSuchClient, Refused
from etherws.features import Membership
from etherws.server.comings import Parting
from etherws.server.observed import About, ObservedServer
from etherws.server.port import State
from etherws.tunnel.wire import VNET_BYTES
from etherws.workers.messages import membership_of, membership_values
from etherws.workers.remote_port import RemotePort
from etherws.workers.workers_status import WorkersStatus
from tests.lab import packets
from tests.lab.hosts import Host
from tests.lab.lent_ports import Lender, LentPorts, key, lending, soon

LINK = "x" * 22

#: The end of each frame of the tests.
OURS = b"by the tests of lease.py"


@pytest.fixture
def lender(host: Host) -> Iterator[Lender]:
    """The ports of lost clients are kept for as long as the test takes."""
    with lending(host) as made:
        yield made


class Connection:
    """One of alice's link, at a worker."""

    def __init__(self, worker: LentPorts, number: int, *, new: bool = False, of: int = 4, **more: Any) -> None:
        self.worker = worker
        wanted = Membership(number, of, LINK, new)
        self.port: RemotePort = worker.join(key("alice", "a"), membership=wanted, **more)
        self.ends: list[Exception] = []
        self.retired: list[bool] = []

    def begin(self) -> Connection:
        """Its session carries frames; the port process knows that."""
        self.port.on_failure(self.ends.append)
        self.port.began(lambda: self.retired.append(True))
        assert self.port.filter.drops() == {}
        return self

    def leave(self, verb: str = "park", code: int | None = None) -> None:
        """Its session ends."""
        parting = Parting(Traffic(100, 1), Traffic(10), reason="it was so", code=code)
        self.port._channel.tell("left", {"port": self.port.number, **parting.to_values()})
        getattr(self.worker.ports, verb)(self.port)

    def got(self) -> int:
        """How many frames of the test's wait in its queue."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                count += os.read(self.port.tap.fileno(), 65536).endswith(OURS)
        return count


def link(lender: Lender, count: int) -> list[Connection]:
    """A link of so many connections, at the two workers in turn."""
    workers = [lender.one, lender.other]
    return [Connection(workers[number % 2], number, new=number == 0).begin() for number in range(count)]


def flood(port: RemotePort) -> None:
    """Frames of many flows come from this client."""
    sink = port.sink()
    for flow in range(16):
        sent = packets.frame(packets.IPV4 + packets.ipv4(packets.UDP, packets.udp(1000 + flow, 2000, OURS)))
        sink.write_batch([bytes(VNET_BYTES) + sent])


def states(lender: Lender) -> list[State]:
    """Of all ports."""
    return [port.state for port in lender.ports]


def test_connections_at_two_workers_have_one_port_and_a_queue_each(lender: Lender) -> None:
    connections = link(lender, 4)
    assert {each.port.tap.present_name() for each in connections} == {"ethws0"}
    assert [(each.port.membership, each.port.joining) for each in connections] == [
        (Membership(0, 4, LINK, True), False),
        *((Membership(number, 4, LINK), True) for number in (1, 2, 3)),
    ]
    assert states(lender) == [State.IN_USE]
    flood(lender.one.join(key("bob")))
    assert sum(each.got() for each in connections) == 16
    # All of them send by the same rules, and to the same debt.
    sinks = [each.port.sink() for each in connections]
    for number, sink in enumerate(sinks):
        sink.write_batch([bytes(VNET_BYTES) + packets.frame(packets.IPV4, sender=bytes([2, 0, 0, 0, 9, number]))])
    assert len({each.port.pacer(1000) is not None and each.port.slot for each in connections}) == 1
    next(iter(lender.ports)).filter.lost()
    soon(lambda: not any("write_batch" in sink.__dict__ for sink in sinks))


def test_connections_at_one_worker_have_the_time_of_one_client(lender: Lender) -> None:
    shares = [each.port.tap.turn.share for each in link(lender, 4)]
    # Each worker has time of its own.
    assert shares[0] is shares[2]
    assert shares[1] is shares[3]
    assert lender.one.join(key("bob")).tap.turn.share not in shares


def test_two_workers_found_and_join_by_the_same_link_only(lender: Lender) -> None:
    with pytest.raises(Refused, match="does not have the link that connection 1 belongs to") as caught:
        Connection(lender.other, 1)
    assert (caught.value.status, caught.value.kind) == ("409 Conflict", "no such link")
    Connection(lender.one, 0, new=True)
    # The founder's session need not have begun, nor its worker have had its answer read.
    assert Connection(lender.other, 1).begin().port.joining


def test_of_two_with_one_number_at_two_workers_the_later_one_stays(lender: Lender) -> None:
    (old,) = link(lender, 1)
    coming = [gevent.spawn(Connection, worker, 0) for worker in (lender.one, lender.other)]
    gevent.joinall(coming, raise_error=True)
    one, other = (each.get() for each in coming)
    for each in (one, other):
        each.begin()
    soon(lambda: old.retired == [True])
    soon(lambda: len(one.ends) + len(other.ends) == 1)
    assert not old.ends


def test_a_queue_goes_from_a_worker_to_the_other(lender: Lender) -> None:
    connections = link(lender, 2)
    new = Connection(lender.one, 1)
    assert not connections[1].retired
    new.begin()
    soon(lambda: connections[1].retired)
    connections[1].leave("free", 1000)
    bob = lender.one.join(key("bob"))
    flood(bob)
    assert connections[0].got() + new.got() == 16


def test_who_stays_after_it_was_replaced_is_told_to_end(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etherws.server.member.RETIRED_SECONDS", 0.001)
    (old,) = link(lender, 1)
    Connection(lender.other, 0).begin()
    soon(lambda: [getattr(end, "code", None) for end in old.ends] == [1000])


def test_a_worker_that_is_killed_ends_its_own_connections_only(lender: Lender) -> None:
    connections = link(lender, 4)
    # Its queues are closed, the port's own among them.
    lender.one.ports._channel.close()
    for each in (connections[0], connections[2]):
        each.port.tap.close()
    lender.one.ports._ports.clear()
    soon(lambda: len(list(next(iter(lender.ports)).members or ())) == 2)
    assert states(lender) == [State.IN_USE]
    bob = lender.other.join(key("bob"))
    flood(bob)
    assert connections[1].got() + connections[3].got() == 16
    # A connection that comes again gets a queue that works.
    back = Connection(lender.other, 0).begin()
    flood(bob)
    assert sum(each.got() for each in (back, connections[1], connections[3])) == 16
    for each in (connections[1], connections[3], back):
        each.leave()
    soon(lambda: State.PARKED in states(lender))
    flood(bob)


def test_a_kick_and_another_client_end_the_connections_at_all_workers(lender: Lender) -> None:
    connections = link(lender, 3)
    waiting = Connection(lender.other, 3)
    next(iter(lender.ports)).fail(ConnectionClosed("ended by the operator", 1008))
    soon(lambda: all(each.ends for each in connections))
    # The session of this one begins after it was told.
    soon(lambda: waiting.port._failure)
    assert waiting.begin().ends
    for each in (*connections, waiting):
        each.leave("free", 1008)
    soon(lambda: states(lender) == [State.FREE])
    connections = link(lender, 3)
    # By one connection and no link, as an older client has it.
    plain = lender.other.join(key("alice", "a"))
    assert plain.membership is None
    assert {each.worker for each in connections} == {lender.one, lender.other}
    assert len(lender.one.evicted + lender.other.evicted) == 3
    assert states(lender) == [State.IN_USE]


def test_a_policy_is_applied_once_and_its_refusal_ends_all(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = link(lender, 3)
    port = next(iter(lender.ports))
    changes: list[Any] = []
    change = port.filter.change

    def note(rules: Any) -> None:
        changes.append(rules)
        change(rules)

    monkeypatch.setattr(port.filter, "change", note)
    for each in connections:
        each.worker.ports.apply(each.port, Profile(macs=3))
        assert each.port.profile.macs == 3
    assert len(changes) == 1

    def refuse(rules: object) -> None:
        raise DeviceError("no room")

    monkeypatch.setattr(port.filter, "change", refuse)
    with pytest.raises(DeviceError):
        connections[1].worker.ports.apply(connections[1].port, Profile(macs=4))
    soon(lambda: all(str(each.ends[0]) == "no room" for each in connections if each.ends) and connections[2].ends)


def test_a_link_counts_once_when_a_policy_allows_fewer(lender: Lender) -> None:
    connections = link(lender, 3)
    lender.server.end_surplus("alice", 1)
    assert not any(each.ends for each in connections)
    lender.server.end_surplus("alice", 0)
    soon(lambda: all(each.ends for each in connections))


def test_a_link_is_shown_as_one_session(lender: Lender) -> None:
    status = WorkersStatus(lender.server)
    observed = ObservedServer(lender.ports, status, About("lan", "ws://*:80/", lambda: None, lambda: None))
    connections = link(lender, 3)
    connections[2].leave()
    soon(lambda: len(list(next(iter(lender.ports)).members or ())) == 2)
    lender.one.ports.shown = Shown(connections[0].port.number)
    lender.other.ports.shown = Shown(connections[1].port.number)
    (session,) = observed.sessions()
    assert (session["identity"], session["members"], session["index"]) == ("alice", 2, connections[0].port.tap.index)
    # What has ended counts.
    assert session["sent"]["bytes"] == 100 + 2 * 7
    assert [each["member"] for each in session["connections"]] == [0, 1]
    assert observed.overview()["ports"]["in_use"] == 1
    assert observed.history(session["index"])["sent"] == [4.0]
    lender.other.ports.shown = lender.one.ports.shown = None
    with pytest.raises(NoSuchClient):
        observed.history(session["index"])


class Shown:
    """What a worker with one session has to show."""

    def __init__(self, number: int) -> None:
        self.number = number

    def counted(self) -> dict[str, Any]:
        raise AssertionError

    def answer(self, verb: str, message: dict[str, Any]) -> dict[str, Any]:
        """As WorkerStatus.answer()."""
        rows = {name: [2.0] for name in ("sent", "received", "round_trip", "queue_delay", "drops")}
        traffic = {"bytes": 7, "frames": 1, "super_frames": 0}
        session = {
            **{"wire": 2, "heard": 1.0, "round_trip": None, "sent": traffic, "received": traffic, "drops": {}},
            **{"rates": {"sent": 1.0, "received": 1.0}, "queue": {"delay": 0.0, "packets": 0, "bytes": 0}},
        }
        match verb:
            case "history":
                return {"history": {"step": 5.0, "end": 10.0, **rows}}
            case "sessions":
                return {"sessions": [[self.number, session]], "next": None}
        raise DeviceError("it counts nothing")


def test_a_worker_that_tells_nonsense_of_a_link_is_broken(lender: Lender) -> None:
    (connection,) = link(lender, 1)
    lender.one.ports._channel.tell("left", {"port": connection.port.number, "sent": {"bytes": "many"}})
    soon(lambda: lender.hung)
    assert "what a connection has carried is malformed" in lender.hung[0][1]
    # Of a port that it does not have, it may tell what it likes: it may have given that back.
    lender.other.ports._channel.tell("left", {"port": 99})
    lender.other.ports._channel.tell("began", {"port": 99})
    lender.other.join(key("bob")).began(lambda: None)
    lender.other.join(key("carol"))
    assert len(lender.hung) == 1


def test_a_membership_goes_between_processes() -> None:
    for membership in (None, Membership(3, 8, LINK), Membership(0, 1, LINK, True)):
        assert membership_of(membership_values(membership)) == membership
    given = membership_values(Membership(3, 8))
    assert membership_of(given, answer=True) == Membership(3, 8)
    for link in ("=3;of=2", "", 7, "x" * 1000):
        with pytest.raises(ChannelError):
            membership_of({"link": link})
