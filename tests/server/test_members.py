"""Links of several connections: real multi-queue TAPs in a bridge, and sessions that are functions."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from etherws.access.policy import Profile
from etherws.counters import Traffic
from etherws.errors import ConnectionClosed, DeviceError, EtherwsError, NoPort, Refused
from etherws.events import LEAVE, event_of
from etherws.features import Membership
from etherws.server import comings
from etherws.server import member as member_module
from etherws.server.comings import Parting
from etherws.server.member import Member
from etherws.server.members import Members
from etherws.server.port import ClientKey, Port, State
from etherws.server.ports import Ports
from etherws.settings import ServerSettings
from etherws.tunnel.wire import VNET_BYTES
from tests.lab import packets
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import PATIENCE, Host, until

ALICE, OTHER = ClientKey("alice", "a" * 22, "192.0.2.1"), ClientKey("alice", "b" * 22)
BOB = ClientKey("bob", "c" * 22, "192.0.2.2")
LINK, NEXT = "x" * 22, "y" * 22
USUAL = Profile()

#: The end of each frame of the tests.
OURS = b"by the tests of members.py"


class Session:
    """One of a link."""

    def __init__(self, server: Server, member: Member) -> None:
        self.server, self.member = server, member
        self.ends: list[EtherwsError] = []
        self.retired = False

    def begin(self) -> Session:
        """It carries frames."""
        self.member.on_failure(self.ends.append)
        self.member.began(self.retire)
        return self

    def retire(self) -> None:
        """It sends no more."""
        assert not self.retired
        self.retired = True

    def ended(self, code: int | None = None, drops: dict[str, int] | None = None) -> None:
        """It has ended: by a good-bye if there is a code. Its port is given back."""
        parting = Parting(Traffic(100, 2), Traffic(50, 1), reason="it was so", code=code)
        parting.drops.update(drops or {})
        self.member.record(parting)
        (self.server.ports.park if code is None else self.server.ports.free)(self.member)

    @property
    def code(self) -> int | None:
        """The code by which it was told to end."""
        return getattr(self.ends[0], "code", None) if self.ends else None

    def got(self) -> int:
        """How many frames of the test's wait in its queue."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                count += os.read(self.member.tap.fileno(), 65536).endswith(OURS)
        return count


class Server:
    """The ports of one server, in a bridge."""

    def __init__(self, host: Host, device: str = "ethws%d") -> None:
        self.host = host
        self.ports = Ports(ServerSettings(bridge="br0", device=device), 1000.0)
        self.evicted: list[int] = []

    def join(
        self, number: int = 0, of: int = 4, *, new: bool = False, client: ClientKey = ALICE, link: str = LINK,
        profile: Profile = USUAL,
    ) -> Session:  # fmt: skip
        """A connection comes; its session has not begun."""
        wanted = Membership(number, of, link, new)
        member = self.ports.take(client, profile, lambda: self.evicted.append(number), membership=wanted)
        assert isinstance(member, Member)
        return Session(self, member)

    def link(self, count: int, of: int = 4, **more: Any) -> list[Session]:
        """A link of so many connections."""
        founder = self.join(0, of, new=True, **more).begin()
        return [founder, *(self.join(number, of, **more).begin() for number in range(1, count))]

    def plain(self, client: ClientKey, evict: Any = lambda: None) -> Port:
        """A client with one connection."""
        port = self.ports.take(client, USUAL, evict)
        assert isinstance(port, Port)
        return port

    def flood(self, port: Port) -> None:
        """Frames of many flows come from this port."""
        for flow in range(16):
            sent = packets.frame(packets.IPV4 + packets.ipv4(packets.UDP, packets.udp(1000 + flow, 2000, OURS)))
            port.tap.write_batch([bytes(VNET_BYTES) + sent])

    def states(self) -> dict[str, State]:
        """Of all ports."""
        return {port.tap.present_name(): port.state for port in self.ports}


@pytest.fixture
def server(host: Host) -> Iterator[Server]:
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        made = Server(host)
        yield made
        made.ports.close()
        assert set(host.links()) == {"lo"}


def refused(server: Server, number: int = 1, **more: Any) -> str:
    """Why a connection is refused; it is told how to mend it."""
    with pytest.raises(Refused) as caught:
        server.join(number, **more)
    assert (caught.value.status, caught.value.kind) == ("409 Conflict", "no such link")
    return str(caught.value)


def test_connections_of_a_link_have_one_port_and_a_queue_each(server: Server) -> None:
    sessions = server.link(3)
    members = [session.member for session in sessions]
    assert server.states() == {"ethws0": State.IN_USE}
    assert [(each.membership.member, each.membership.of, each.joining) for each in members] == [
        (0, 4, False),
        (1, 4, True),
        (2, 4, True),
    ]
    assert {each.tap.present_name() for each in members} == {"ethws0"}
    assert {(each.state, each.client.identity, each.owner) for each in members} == {
        (State.IN_USE, "alice", members[0].port.owner)
    }
    assert members[0].pacer(10) is members[2].pacer(10)
    # Frames for the client come out of one queue or another, and never twice.
    server.flood(server.plain(BOB))
    got = [session.got() for session in sessions]
    assert sum(got) == 16
    assert sum(count > 0 for count in got) > 1


def test_connections_of_a_link_have_the_time_of_one_client(server: Server) -> None:
    sessions = server.link(3)
    shares = {session.member.tap.turn.share for session in sessions}
    assert len(shares) == 1
    other = server.plain(BOB)
    assert other.tap.turn.share not in shares


def test_who_does_not_know_a_link_does_not_join_it(server: Server) -> None:
    server.link(1)
    assert "it here: have it keep a client's connections on one server" in refused(server, link=NEXT)
    refused(server, client=OTHER)
    refused(server, client=ClientKey("bob", ALICE.resume))
    refused(server, client=ClientKey(None, ALICE.resume))
    refused(server, profile=Profile(mtu=1400))
    assert "has 4 connections at most" in refused(server, number=4, of=16)
    # Neither does who cannot be told from others.
    server.join(new=True, client=ClientKey(), link=NEXT)
    refused(server, client=ClientKey(), link=NEXT)
    # Nor is who has one connection only a link.
    server.plain(BOB)
    refused(server, client=BOB)


def test_a_policy_that_is_newer_is_applied_when_a_connection_joins(server: Server) -> None:
    (session,) = server.link(1)
    later = server.join(1, profile=Profile(rate_down=1_000_000)).begin()
    assert session.member.port.profile.rate_down == later.member.profile.rate_down == 1_000_000
    assert session.member.port.filter.needed.rate_down == 1_000_000


@pytest.mark.parametrize(("code", "state"), [(None, State.PARKED), (1012, State.PARKED), (1000, State.FREE)])
def test_the_end_of_a_replaced_connection_says_nothing_of_the_link(
    server: Server, code: int | None, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (old,) = server.link(1, of=1)
    new = server.join(0, of=1).begin()
    assert old.retired
    new.member.record(Parting(reason="the last one's", code=code))
    (server.ports.free if code == 1000 else server.ports.park)(new.member)
    # Nothing more of use comes by it.
    assert old.code == 1000
    old.ended(1000)
    assert server.states() == {"ethws0": state}
    assert f"{ALICE.label} left ethws0 after 0 s: the last one's; sent 100 bytes" in caplog.text


def test_a_port_that_is_kept_since_a_replaced_connection_ended_can_be_freed(server: Server) -> None:
    (old,) = server.link(1, of=1)
    server.join(0, of=1).begin().ended()
    old.ended(1000)
    assert server.states() == {"ethws0": State.PARKED}
    assert old.member.state is State.PARKED
    # As the review does, when a file has changed.
    server.ports.free(old.member)
    assert server.states() == {"ethws0": State.FREE}


@pytest.mark.parametrize("number", [0, 1], ids=["the port's own queue", "a further queue"])
def test_a_connection_with_a_number_in_use_replaces_the_other(server: Server, number: int) -> None:
    old = server.link(2)[number]
    new = server.join(number)
    assert not old.retired
    new.begin()
    assert old.retired
    assert not old.ends
    assert new.member.joining

    assert new.member in list(new.member.members)
    # It has the same queue.
    server.flood(server.plain(BOB))
    assert new.got() == 0 or old.got() == 0
    old.ended(1000)
    assert server.states()["ethws0"] is State.IN_USE
    assert old.member.state is State.FREE


def test_one_that_was_replaced_and_stays_is_ended(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_module, "RETIRED_SECONDS", 0.001)
    (old,) = server.link(1)
    server.join(0).begin()
    while not old.ends:
        gevent.sleep(0.001)
    assert old.code == 1000
    old.ended(1000)


def test_there_are_never_more_than_two_begun_connections_of_a_number(server: Server) -> None:
    sessions = server.link(1)
    for _ in range(5):
        sessions.append(server.join(0).begin())
    assert [session.code for session in sessions] == [1000] * 4 + [None, None]
    assert [session.retired for session in sessions] == [True] * 5 + [False]


def test_of_two_that_come_at_once_by_one_number_the_later_one_stays(server: Server) -> None:
    server.link(1)
    coming = [gevent.spawn(server.join, 1) for _ in range(2)]
    gevent.joinall(coming, raise_error=True)
    one, other = (each.get() for each in coming)
    # It is told as soon as it can hear.
    one.begin()
    assert one.code == 1000
    assert not other.begin().ends
    one.ended(1000)
    assert [each.membership.member for each in other.member.members] == [0, 1]


def test_one_that_does_not_begin_changes_nothing(server: Server) -> None:
    (old,) = server.link(1)
    new = server.join(0)
    server.ports.park(new.member)
    assert not old.retired
    # The old one may end first.
    new = server.join(0)
    old.ended()
    assert server.states() == {"ethws0": State.IN_USE}
    new.begin()
    server.flood(server.plain(BOB))
    assert new.got() == 16


def test_one_that_was_replaced_ends_with_its_heir(server: Server) -> None:
    sessions = server.link(2)
    new = server.join(1).begin()
    new.ended()
    assert sessions[1].code == 1000
    assert server.states() == {"ethws0": State.IN_USE}
    # Frames do not wait for who does not read.
    server.flood(server.plain(BOB))
    assert sessions[0].got() == 16
    # Its number is free for another one.
    assert server.join(1).begin().member.joining
    sessions[1].ended(1000)


def test_the_end_of_the_founder_ends_nobody_else(server: Server) -> None:
    first, second = server.link(2)
    port = first.member.port
    first.ended()
    assert server.states() == {"ethws0": State.IN_USE}
    assert first.member.state is State.FREE
    bob = server.plain(BOB)
    server.flood(bob)
    assert second.got() == 16
    # The next one gets the port's own queue again.
    third = server.join(3).begin()
    server.flood(bob)
    assert second.got() + third.got() == 16
    third.ended()
    second.ended()
    assert server.states()["ethws0"] is State.PARKED
    assert second.member.state is State.PARKED
    assert second.member.since == port.since
    # The queue that stays is the port's own.
    server.flood(bob)
    own = server.plain(ALICE)
    assert own is port
    assert os.read(own.tap.fileno(), 100)


def test_the_last_one_parks_or_frees(server: Server) -> None:
    for codes, state in (((1000, None), State.PARKED), ((None, 1000), State.FREE), ((1012, 1000), State.FREE)):
        for session, code in zip(server.link(2), codes, strict=True):
            session.ended(code)
        assert server.states() == {"ethws0": state}
    # Twice is as once.
    session = server.link(1)[0]
    session.ended()
    server.ports.free(session.member)
    assert server.states() == {"ethws0": State.FREE}
    server.ports.park(session.member)
    server.ports.free(session.member)
    assert server.states() == {"ethws0": State.FREE}


def test_a_link_that_was_lost_here_is_found_by_the_next_connection(server: Server) -> None:
    for session in server.link(2):
        session.ended()
    assert server.states() == {"ethws0": State.PARKED}
    # Its client thinks that others of it are there.
    back = server.join(3)
    assert not back.member.joining
    assert back.member.membership == Membership(3, 4, LINK)
    assert back.member.port.reconnects == 1
    back.begin()
    second = server.join(1).begin()
    assert second.member.joining
    assert not server.evicted
    # Another one takes its place, and it is not there any more.
    for session in (back, second):
        session.ended()
    server.link(1, link=NEXT)
    refused(server, number=2)


def test_another_link_of_the_client_or_one_connection_ends_all(server: Server) -> None:
    sessions = server.link(2)
    waiting = server.join(2)
    coming = gevent.spawn(server.join, 0, new=True, link=NEXT)
    while len(server.evicted) < 3:
        gevent.sleep(0.001)
    # What has not begun is told later.
    assert waiting.begin().code == 1008
    refused(server, number=3)
    for session in (*sessions, waiting):
        session.ended(1008)
    assert coming.get().member.members.id == NEXT
    assert server.states() == {"ethws0": State.IN_USE}


def test_a_link_that_does_not_end_keeps_its_port(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etherws.server.port.EVICT_TIMEOUT", 0.001)
    server.link(2)[0].ended()
    with pytest.raises(NoPort, match="still in use"):
        server.plain(ALICE)


def test_a_link_counts_once(server: Server) -> None:
    two = Profile(connections=2)
    one = server.link(3, profile=two)
    other = server.link(3, client=OTHER, profile=two)
    assert server.states() == {"ethws0": State.IN_USE, "ethws1": State.IN_USE}
    assert not server.evicted
    assert one[0].member.port is not other[0].member.port


def test_a_kick_ends_all_also_those_that_have_not_begun(server: Server) -> None:
    sessions = [*server.link(2), server.join(2)]
    sessions[0].member.port.fail(ConnectionClosed("ended by the operator", 1008))
    sessions[2].begin()
    assert [session.code for session in sessions] == [1008] * 3
    refused(server)
    server.ports.gate.shut_out(["alice"], [], 60)
    with pytest.raises(Refused, match="the operator of this server has ended"):
        server.join(1)


def test_new_rules_are_put_in_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = server.link(3)
    port = sessions[0].member.port
    changes = []
    change = port.filter.change

    def note(rules: Any) -> None:
        changes.append(rules)
        change(rules)

    monkeypatch.setattr(port.filter, "change", note)
    later = Profile(macs=3)
    for session in sessions:
        assert session.member.profile == USUAL
        server.ports.apply(session.member, later)
        assert session.member.profile == later
    assert [rules.macs for rules in changes] == [3]
    # A refusal ends all, and nothing passes meanwhile.
    held = []
    for session in sessions:
        session.member.filter.arm(b"", lambda: held.append(1))
    monkeypatch.setattr(port.filter, "change", lambda rules: _raise(DeviceError("no room")))
    with pytest.raises(DeviceError):
        server.ports.apply(sessions[1].member, Profile(macs=4))
    assert len(held) == 3
    assert [str(session.ends[0]) for session in sessions] == ["no room"] * 3


def _raise(error: Exception) -> None:
    raise error


def test_rules_that_others_take_away_hold_all(server: Server) -> None:
    sessions = server.link(3)
    sinks = [session.member.sink() for session in sessions]
    packet = bytes(VNET_BYTES) + frame(60, to=BROADCAST)
    for sink in sinks[:2]:
        sink.write_batch([packet])
        assert "write_batch" in sink.__dict__
    sessions[0].member.port.filter.lost()
    assert not any("write_batch" in sink.__dict__ for sink in sinks)
    sessions[0].member.port.filter.restore(last=False)
    sinks[2].write_batch([packet])
    assert sessions[0].member.filter.drops() == {}


def test_a_port_of_one_queue_gives_one_connection_that_can_be_replaced(server: Server) -> None:
    server.plain(BOB)
    (old,) = server.link(1, of=1)
    assert not old.member.port.tap.multi_queue
    new = server.join(0, of=1).begin()
    assert old.retired
    old.ended(1000)
    refused(server, number=1)
    # Who wants more next time gets another interface.
    new.ended()
    (back, _) = server.link(2)
    assert back.member.port is not new.member.port
    assert back.member.port.tap.multi_queue


def test_the_users_own_interface_stays_as_it_is(host: Host) -> None:
    host.command("ip tuntap add tap7 mode tap")
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        server = Server(host, "tap7")
        session = server.join(2, new=True)
        assert session.member.membership[:2] == (0, 1)
        session.begin().ended()
        assert server.join(2, new=True, link=NEXT).member.port is session.member.port
        server.ports.close()
    host.command("ip link del tap7")


def test_an_interface_that_was_deleted_ends_the_link(server: Server) -> None:
    sessions = server.link(3)
    sessions[0].ended()
    server.host.command("ip link del ethws0")
    with pytest.raises(DeviceError):
        server.join(0)
    for session in sessions[1:]:
        session.ended()
    assert server.ports.first.tap.alive()
    assert server.states() == {"ethws0": State.FREE}


def test_without_descriptors_a_connection_is_refused_and_the_others_stay(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = server.link(1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", lambda fd: _raise(OSError(24, "Too many open files")))
        for number in (0, 1):
            with pytest.raises(DeviceError, match="Too many open files; allow more") as caught:
                server.join(number)
            # By this the log knows that it is the same lack each time.
            assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(DeviceError):
            server.join(new=True, client=BOB)
    assert server.states() == {"ethws0": State.IN_USE}
    server.flood(server.plain(BOB))
    assert sessions[0].got() == 16


def test_however_many_descriptors_are_left_none_stays_open_for_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_more_than(left: int, attempt: Callable[[], Session]) -> bool:
        """Whether a connection comes although there are only so many descriptors. It goes while there are none."""
        before, dup, some = queues(), os.dup, iter(range(left))
        with monkeypatch.context() as patch:
            patch.setattr(
                os,
                "dup",
                lambda fd: _raise(OSError(24, "Too many open files")) if next(some, None) is None else dup(fd),
            )
            try:
                session = attempt().begin()
            except DeviceError:
                session = None
            patch.setattr(os, "dup", lambda fd: _raise(OSError(24, "Too many open files")))
            if session:
                session.ended(1000)
        until(lambda: are_closed(before), lambda: f"{before} queues, and not {queues()}")
        return session is not None

    def are_closed(before: int) -> bool:
        # Threads close some of them, and those of earlier tests.
        gevent.sleep(0.001)
        return queues() <= before

    # What is opened once is there then.
    server.join(new=True).begin().ended(1000)
    results = [without_more_than(left, lambda: server.join(new=True)) for left in range(6)]
    assert results == sorted(results)
    assert {False, True} == {*results}
    founder = server.join(new=True).begin()
    results = [without_more_than(left, lambda: server.join(1)) for left in range(6)]
    assert results == sorted(results)
    assert {False, True} == {*results}
    assert [*founder.member.members] == [founder.member]


def queues() -> int:
    """How many queues of TAPs this process has open."""
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += os.readlink(each) == "/dev/net/tun"
    return count


def test_ports_that_are_closed_or_handed_over_leave_nothing_open(server: Server) -> None:
    server.plain(ALICE)
    before = queues()
    sessions = server.link(3, client=BOB)
    port = sessions[0].member.port
    sessions[0].ended()
    members: Members | None = sessions[0].member.port.members
    assert members is not None
    server.ports._release(port)
    assert queues() == before
    # The next process would get a queue that has packets.
    assert not members._detached
    assert not list(members)
    # Whose session ends later changes nothing.
    sessions[1].ended()


def test_a_link_has_one_line_in_the_log_at_its_end_and_one_for_what_is_lost(
    server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comings, "spawn_later", lambda _, call, *values: call(*values))
    caplog.set_level(logging.INFO, "etherws")
    one, two, three = server.link(3)
    caplog.clear()
    one.ended(None, {"queue late": 2})
    two.ended(1000, {"queue late": 3})
    # Its worker was killed.
    server.ports.park(three.member)
    assert [record.getMessage().split(" after ")[0] for record in caplog.records] == [
        "192.0.2.1 as 'alice': lost connection 0 on ethws0: it was so; 2 of 4 are there",
        "192.0.2.1 as 'alice' left ethws0",
    ]
    said = "the process that carried it has ended; sent 200 bytes, received 100; dropped "
    assert said in caplog.records[-1].getMessage()
    kind, fields = event_of(caplog.records[-1])
    assert kind == LEAVE
    # The kernel's own frames may have waited in a queue, too.
    assert (fields["sent"], fields["drops"]["queue late"], fields["code"]) == (200, 5, None)
    # One that never began is no client that left.
    caplog.clear()
    server.ports.park(server.join(new=True, link=NEXT).member)
    assert not caplog.records
