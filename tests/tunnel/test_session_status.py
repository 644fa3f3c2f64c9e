"""What a session says of itself, on a stream without a kernel, and on TCP."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from gevent import socket

from etherws.counters import Totals, Traffic
from etherws.tunnel import session_status
from etherws.tunnel.connection import Connection
from etherws.tunnel.fq_codel import Waiting
from etherws.tunnel.session_status import SessionStatus
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.wire import COMPLETE, Version1, Version2
from tests.lab.streams import FakeStream


class Clock:
    """Both of a session's clocks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(session_status, "monotonic", lambda: self.now)
        monkeypatch.setattr(session_status, "time", lambda: 1e9 + self.now)


class Parts:
    """A session's parts, and its status."""

    def __init__(self, stream: Any = None) -> None:
        self.stream = stream or FakeStream()
        self.connection = Connection(self.stream, server=True, wire=Version2(), agreed=["v2", "mtu"])
        self.waiting = Waiting(0, 0, 0.0)
        self.backlog = SimpleNamespace(drops=Counter[str](), waiting=lambda now: self.waiting)
        self.backlog.empty = lambda: not self.waiting.packets
        self.tap = SimpleNamespace(drops=Counter[str]())
        self.totals = Totals()
        self.status = SessionStatus(self.connection, cast(Any, self.backlog), cast(Any, self.tap), totals=self.totals)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def carrying(monkeypatch: pytest.MonkeyPatch, parts: Parts) -> Callable[[int, int], None]:
    """Return what sets how many bytes its connection has sent and received."""

    def carry(sent: int, received: int) -> None:
        monkeypatch.setattr(parts.connection, "carried", lambda: (sent, received))
        parts.connection._receiver.heard += 1

    return carry


def test_a_new_session_shows_each_field_and_json_takes_it(clock: Clock) -> None:
    near, far = socket.socketpair()
    with near, far:
        parts = Parts(PlainStream(near))
    values = parts.status.values()
    assert json.loads(json.dumps(values)) == values
    nothing = {"bytes": 0, "frames": 0, "super_frames": 0}
    assert values == {
        "wire": 2,
        "features": ["v2", "mtu"],
        "tls": None,
        "peer_mtu": None,
        "congestion": None,
        "since": 1e9 + 1000,
        "heard": values["heard"],
        "round_trip": None,
        "loaded_round_trip": None,
        "sent": nothing,
        "received": nothing,
        "rates": {"sent": 0.0, "received": 0.0},
        "drops": {},
        "queue": {"delay": 0.0, "packets": 0, "bytes": 0},
        "members": 1,
        "connections": [],
    }


def test_frames_are_counted_without_tcp_too(clock: Clock) -> None:
    parts = Parts()
    parts.connection.send_queued([COMPLETE + bytes(60)] * 3)
    sent = parts.status.values()["sent"]
    assert sent == {"bytes": len(parts.stream.sent), "frames": 3, "super_frames": 0}


def test_rates_are_those_of_the_last_seconds(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    carry = carrying(monkeypatch, parts)

    def rates() -> tuple[float, float]:
        found = parts.status.values()["rates"]
        return found["sent"], found["received"]

    # At the moment of its begin, a byte would be an endless rate.
    carry(1, 0)
    assert rates() == (8000.0, 0.0)
    clock.now += 1
    carry(1000, 500)
    assert rates() == (8000.0, 4000.0)
    clock.now += 4
    carry(5000, 500)
    assert rates() == (8000.0, 800.0)
    parts.status.sample()
    # The last sample is too near: from the one before.
    clock.now += 1
    carry(6000, 500)
    assert rates() == (8000.0, 4000 / 6)
    # Now it is far enough.
    clock.now += 2
    assert rates()[1] == 0.0
    clock.now += 2
    parts.status.sample()
    clock.now += 2
    assert rates() == (8000 / 7, 0.0)


def test_the_history_has_rates_delays_and_drops_of_each_step(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    carry = carrying(monkeypatch, parts)
    parts.status.sample()
    clock.now += 5
    carry(5000, 10_000)
    parts.connection.delays.answered(10.0, 10.5)
    parts.connection.delays.waited(0.25, clock.now)
    parts.tap.drops["EIO"] += 2
    parts.status.sample()
    clock.now += 5
    parts.waiting = Waiting(3, 300, 0.125)
    parts.backlog.drops["queue late"] += 1
    parts.status.sample()
    assert parts.status.history() == {
        "step": 5.0,
        "end": 1e9 + 1010,
        "sent": [0.0, 8000.0, 0.0],
        "received": [0.0, 16_000.0, 0.0],
        "round_trip": [None, 0.5, 0.5],
        "queue_delay": [0.0, 0.25, 0.125],
        "drops": [0, 2, 1],
    }


def test_the_queue_shows_who_waits_longest_or_waited_last(clock: Clock) -> None:
    parts = Parts()
    parts.waiting = Waiting(3, 300, 0.5)
    parts.connection.delays.waited(0.25, clock.now)
    assert parts.status.values()["queue"] == {"delay": 0.5, "packets": 3, "bytes": 300}
    parts.waiting = Waiting(0, 0, 0.0)
    assert parts.status.values()["queue"] == {"delay": 0.25, "packets": 0, "bytes": 0}
    clock.now += session_status.WAIT_SHOWN
    assert parts.status.values()["queue"]["delay"] == 0.0


def test_what_is_settled_is_never_counted_again_and_never_less(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    carry = carrying(monkeypatch, parts)
    wire = parts.connection.wire
    wire.sent.add(Traffic(0, 5, 2))
    wire.drops["super-frame"] += 1
    carry(100, 10)
    for _ in range(2):
        parts.status.settle()
        assert parts.totals.sent == Traffic(100, 5, 2)
        assert parts.totals.received == Traffic(10, 0, 0)
        assert parts.totals.drops == {"super-frame": 1}
    wire.received.add(Traffic(0, 7, 1))
    parts.connection.drops["text"] += 1
    parts.tap.drops["EIO"] += 1
    parts.backlog.drops["queue late"] += 4
    carry(150, 30)
    parts.status.settle()
    # The socket is closed.
    carry(0, 0)
    parts.status.settle()
    assert parts.totals.sent == Traffic(150, 5, 2)
    assert parts.totals.received == Traffic(30, 7, 1)
    assert parts.totals.drops == {"super-frame": 1, "text": 1, "EIO": 1, "queue late": 4} == parts.status.drops()
    assert parts.status.values()["sent"]["bytes"] == 150
    # A pong and a wait are in the histograms at once.
    parts.connection.delays.answered(1.0, 1.5)
    parts.connection.delays.waited(0.5, 2.0)
    assert parts.totals.round_trip.sum == parts.totals.queue_delay.sum == 0.5


def test_on_tcp_the_kernel_counts_and_the_congestion_control_has_a_name(network: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near, (far, _) = socket.create_connection(listener.getsockname()), listener.accept()
    with far:
        connection = Connection(PlainStream(near), server=True, wire=Version1(), congestion="reno")
        tap, backlog = SimpleNamespace(drops=Counter[str]()), SimpleNamespace(drops=Counter[str]())
        backlog.waiting = lambda now: Waiting(0, 0, 0.0)
        status = SessionStatus(connection, cast(Any, backlog), cast(Any, tap), Totals())
        assert connection.send_queued([COMPLETE + bytes(60)])
        far.recv(62, socket.MSG_WAITALL)
        far.sendall(b"x" * 33)
        while connection.unread() < 33:
            socket.wait_read(near.fileno())
        values = status.values()
        assert (values["congestion"], values["features"], values["wire"]) == ("reno", [], 1)
        assert values["received"]["bytes"] == 33
        # Linux counts the SYN as a byte that was acknowledged.
        assert values["sent"] == {"bytes": 63, "frames": 1, "super_frames": 0}
        connection.close(1000)


def test_a_session_at_rest_is_not_asked_about(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its history goes on. What was acknowledged after the last frame has been seen before."""
    parts = Parts()
    carry = carrying(monkeypatch, parts)
    asked = list[float]()

    def sample(sent: int) -> None:
        def carried() -> tuple[int, int]:
            asked.append(clock.now)
            return sent, 0

        clock.now += 5
        monkeypatch.setattr(parts.connection, "carried", carried)
        parts.status.sample()

    carry(1000, 0)
    for sent in (1000, 2000, 2000, 2000):
        sample(sent)
    assert len(asked) == 2
    # Nor for the totals of all sessions.
    parts.status.settle()
    assert len(asked) == 2
    history = parts.status.history()
    assert history["sent"] == [1600.0, 1600.0, 0.0, 0.0]
    assert parts.status.values()["rates"]["sent"] == 0.0
    # Something waits, though nothing comes or goes: the peer reads nothing.
    parts.waiting = Waiting(3, 300, 0.125)
    sample(2000)
    assert parts.status.history()["queue_delay"][-1] == 0.125
    parts.waiting = Waiting(0, 0, 0.0)
    parts.connection.wire.sent.frames += 1
    sample(3000)
    assert parts.status.history()["sent"][-1] == 1600.0
