"""Clients that are in already, with a clock and ports of the tests' own.

The same with real ones: tests/system/test_review.py.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import gevent
import pytest

from etherws.access.policy import Policy, Profile
from etherws.errors import ConnectionClosed, DeviceError
from etherws.features import Membership
from etherws.server import review
from etherws.server.authenticate import Admission
from etherws.server.port import State
from etherws.server.review import INTERVAL, JUDGE_PAUSE, Review
from etherws.tunnel.rate_limit import Pacer
from etherws.walks import TURN_SECONDS


class Session:
    """Notes how it is ended, and its rate."""

    def __init__(self) -> None:
        self.reason: Any = None
        self.rates: list[int | None] = []

    def end(self, reason: Any) -> None:
        """As Session.end()."""
        self.reason = self.reason or reason

    def limit_rate(self, pacer: Pacer | None) -> None:
        """As Session.limit_rate()."""
        self.rates.append(pacer.rate if pacer else None)


class Port:
    """A port in a state."""

    client: Any = None
    membership: Membership | None = None

    def __init__(self, profile: Profile, since: float) -> None:
        self.profile, self.since, self.state = profile, since, State.IN_USE

    def pacer(self, rate: int) -> Pacer:
        return Pacer(rate)


class Server:
    """Clients, a policy and a clock, which runs only where work is counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.awake = 0.0
        self.longest = 0.0
        self.policy = Policy(Profile(), {})
        self.removed: set[str | None] = set()
        self.applied: list[Any] = []
        self.freed: list[Any] = []
        self.judged = 0
        self.error: DeviceError | None = None
        self.content: tuple[object, ...] = (object(),)
        monkeypatch.setattr(review, "monotonic", lambda: self.now)
        monkeypatch.setattr(gevent, "spawn", lambda _: None)
        me: Any = self
        self.review = Review(me, me, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let others run."""
        assert seconds >= JUDGE_PAUSE * TURN_SECONDS or self.applied
        self.longest = max(self.longest, self.now - self.awake)
        self.now += seconds
        self.awake = self.now

    def get(self) -> Policy:
        """The policy."""
        return self.policy

    def files(self) -> tuple[object, ...]:
        """What the files contain."""
        return self.content

    def problem(self, admission: Admission) -> ConnectionClosed | None:
        """Whether it would still be let in; takes 0.2 ms."""
        self.judged += 1
        self.now += 0.0002
        return ConnectionClosed("removed", 1008) if admission.identity in self.removed else None

    def apply(self, port: Port, profile: Profile) -> None:
        """Put rules in; takes 20 ms."""
        self.now += 0.02
        if self.error:
            raise self.error
        port.profile = profile
        self.applied.append(port)

    def free(self, port: Port) -> None:
        """A parked port goes."""
        port.state = State.FREE
        self.freed.append(port)
        if self.error:
            raise self.error

    def change(self, **default: Any) -> None:
        """Another policy."""
        self.policy = Policy(replace(self.policy.default, **default), {})

    def join(self, name: str | None, session: bool = True, profile: Profile | None = None) -> tuple[Any, Any]:
        """A client."""
        me: Any = self
        port: Any = Port(profile or self.policy.profile(name), self.now)
        guest = me.review.add(me, port, Admission(name))
        if session:
            guest.session = Session()
        return guest, guest.session


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server without clients."""
    return Server(monkeypatch)


def test_who_was_judged_is_judged_again_only_after_a_change(server: Server) -> None:
    server.join("alice")
    server.review.look()
    server.review.look()
    assert server.judged == 1
    server.content = (object(),)
    server.review.look()
    server.policy = Policy(Profile(), {})
    server.review.look()
    assert server.judged == 3


def test_a_thousand_clients_freeze_nobody(server: Server) -> None:
    sessions = [server.join(f"client {number}")[1] for number in range(1000)]
    server.removed = {f"client {number}" for number in range(0, 1000, 2)}
    server.review.look()
    assert server.judged == 1000
    # No turn is longer than any session's, but for the client that it began with.
    assert server.longest <= TURN_SECONDS + 0.0003
    assert [session.reason is not None for session in sessions] == [True, False] * 500
    # 0.2 s of work and its pauses, and a second until the next look: the sessions end within two.
    assert server.now < 1.0


def test_new_rules_for_a_thousand_clients_wait_for_ends_that_come_later(server: Server) -> None:
    clients = [server.join(f"client {number}") for number in range(1000)]
    server.review.look()
    server.change(macs=1)
    began = server.now
    server.review.look()
    assert 0 < len(server.applied) < 1000
    assert server.longest < 0.03
    assert server.now - began < INTERVAL + 1.0
    server.removed = {"client 999"}
    server.content = (object(),)
    server.review.look()
    assert clients[999][1].reason.code == 1008
    while len(server.applied) < 999:
        server.review.look()
    assert {guest.port.profile.macs for guest, _ in clients[:999]} == {1}


def test_a_session_gets_its_rate_and_its_rules(server: Server) -> None:
    _, session = server.join("alice")
    _, other = server.join("bob", profile=Profile(rate_up=1_000_000))
    server.review.look()
    assert (session.rates, other.rates) == ([], [None])
    server.change(rate_up=2_000_000)
    server.review.look()
    assert (session.rates, other.rates) == ([2_000_000], [None, 2_000_000])


def test_another_place_ends_the_session_by_1012(server: Server) -> None:
    for change in ({"bridge": "br1"}, {"device": "x%d"}, {"mtu": 1400}):
        _, session = server.join("alice")
        server.change(**change)
        server.review.look()
        assert session.reason.code == 1012
        server.review.stop()


def test_a_parked_port_is_freed_or_changed(server: Server) -> None:
    (kept, _), (gone, _) = server.join("alice"), server.join("bob")
    kept.port.state = gone.port.state = State.PARKED
    server.removed = {"bob"}
    server.change(macs=1)
    server.review.look()
    assert server.freed == [gone.port]
    assert server.applied == [kept.port]
    server.error = DeviceError("no TAP")
    server.removed = {"alice"}
    server.content = (object(),)
    server.review.look()
    assert server.freed == [gone.port, kept.port]


def test_who_has_left_is_forgotten_and_who_has_no_session_yet_waits(server: Server) -> None:
    guest, _ = server.join("alice")
    late, _ = server.join("bob", session=False)
    guest.port.state = State.FREE
    server.removed = {"bob"}
    server.review.look()
    assert server.judged == 0
    assert list(server.review._guests.values()) == [late]
    session: Any = Session()
    late.session = session
    server.review.look()
    assert session.reason.code == 1008


def test_rules_that_cannot_be_put_in_end_the_session(server: Server) -> None:
    _, session = server.join("alice")
    server.error = DeviceError("no room")
    server.change(macs=1)
    server.review.look()
    assert session.reason is server.error


def test_who_has_more_connections_than_it_may_loses_parked_ones_first_and_then_the_oldest(server: Server) -> None:
    server.change(connections=3)
    clients = [server.join("alice") for _ in range(3)]
    _, other = server.join(None)
    for number, (guest, _) in enumerate(clients):
        guest.port.since = number
    clients[2][0].port.state = State.PARKED
    server.review.look()
    server.change(connections=1)
    server.review.look()
    assert server.freed == [clients[2][0].port]
    assert [session.reason is not None for _, session in clients] == [True, False, False]
    assert other.reason is None


def test_an_error_does_not_end_the_looks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    guest, _ = server.join("alice")
    looks: list[int] = []

    def look() -> None:
        looks.append(1)
        if len(looks) == 1:
            raise ValueError
        del server.review._guests[guest.port]

    monkeypatch.setattr(server.review, "look", look)
    monkeypatch.setattr(server.review, "_sleep", lambda _: None)
    server.review._run()
    assert len(looks) == 2


def link(server: Server, count: int, profile: Profile) -> list[tuple[Any, Any]]:
    """The connections of a client's link, which began one after the other."""
    found = []
    client, membership = object(), Membership(0, count, "x" * 22)
    for _ in range(count):
        guest, session = server.join("alice", profile=profile)
        guest.port.client, guest.port.membership = client, membership
        found.append((guest, session))
        server.now += 1
    return found


def test_the_connections_of_a_link_count_once(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "etherws")
    server.change(connections=2)
    usual = server.policy.profile("alice")
    links = [link(server, 3, usual) for _ in range(2)]
    server.review.look()
    assert not any(session.reason for each in links for _, session in each)
    # Other rules are put in for each of them; that is once for who has the ports.
    server.change(rate_up=1000)
    server.review.look()
    assert [session.rates for each in links for _, session in each] == [[1000]] * 6
    assert "0 clients had to go, 2 have other rules" in caplog.text
    # The older link has to go, with all of its connections.
    server.change(connections=1)
    server.review.look()
    assert [session.reason is not None for each in links for _, session in each] == [True] * 3 + [False] * 3
    assert "1 clients had to go" in caplog.text
    server.removed = {"alice"}
    server.content = (object(),)
    server.review.look()
    assert all(session.reason for each in links for _, session in each)


def test_a_link_of_which_one_connection_is_left_is_in_use(server: Server) -> None:
    server.change(connections=2)
    usual = server.policy.profile("alice")
    old, new = link(server, 2, usual), link(server, 2, usual)
    new[0][0].port.state = State.PARKED
    server.change(connections=1)
    server.review.look()
    assert all(session.reason for _, session in old)
    assert not new[1][1].reason
