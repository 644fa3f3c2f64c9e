"""What the port process is told of its workers' sessions: all of them, also when a worker is silent, broken or gone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from etherws.counters import Totals, Values
from etherws.errors import ChannelError, DeviceError, NoSuchClient
from etherws.server.port import Port
from etherws.server.refusals import refusals
from etherws.workers import workers_status
from etherws.workers.messages import Message
from etherws.workers.remote_port import RemotePort
from etherws.workers.worker_status import PIECE, WorkerStatus
from etherws.workers.workers_status import WorkersStatus
from tests.lab.hosts import Host
from tests.lab.lent_ports import Lender, LentPorts, key, lending, soon


class Session:
    """What is shown of one."""

    def __init__(self, number: int) -> None:
        self.number = number

    def status(self) -> Values:
        return {"wire": 2, "sent": {"bytes": self.number}, "identity": "somebody else"}

    def history(self) -> Values:
        return {"sent": [self.number]}


class Application:
    """A worker's, with a session on each port that was lent to it."""

    def __init__(self) -> None:
        self.totals = Totals()

    def session_on(self, port: RemotePort) -> Any:
        return Session(port.number)


@pytest.fixture
def lender(host: Host) -> Iterator[Lender]:
    with lending(host) as made:
        yield made


@pytest.fixture
def status(lender: Lender) -> WorkersStatus:
    made = WorkersStatus(lender.server)
    for worker in (lender.one, lender.other):
        show(worker)
    return made


def show(worker: LentPorts) -> Application:
    """Have a worker answer from now on."""
    application: Any = Application()
    worker.ports.shown = WorkerStatus(application, worker.ports)
    return application  # type: ignore[no-any-return]


def totals_of(worker: LentPorts) -> Totals:
    assert isinstance(worker.ports.shown, WorkerStatus)
    return worker.ports.shown._application.totals


def again(status: WorkersStatus) -> WorkersStatus:
    """Have the workers asked now, however lately they were."""
    status._fresh_until = [0.0, 0.0]
    return status


def port_of(lender: Lender, identity: str) -> Port:
    return next(port for port in lender.ports if port.client.identity == identity)


class Deaf:
    """A worker that hangs as soon as it is asked."""

    def answer(self, verb: str, message: Message) -> Message:
        gevent.sleep(1000)
        raise AssertionError

    def counted(self) -> Message:
        return {}


def test_the_sessions_of_all_workers_are_told_with_their_worker(lender: Lender, status: WorkersStatus) -> None:
    alice, bob = lender.one.join(key("alice")), lender.other.join(key("bob"))
    lender.one.link.pid, lender.other.link.pid = 11, 12
    own = status.look()
    # What a worker may not say of a session is not taken from it.
    assert own(port_of(lender, "alice")) == {"worker": 11, "wire": 2, "sent": {"bytes": alice.number}}
    assert own(port_of(lender, "bob")) == {"worker": 12, "wire": 2, "sent": {"bytes": bob.number}}
    assert status.history(port_of(lender, "bob")) == {"sent": [bob.number]}


def test_many_sessions_come_in_pieces(lender: Lender, status: WorkersStatus) -> None:
    for number in range(PIECE + 2):
        lender.one.join(key(f"client-{number}"))
    own = status.look()
    assert all(own(port)["wire"] == 2 for port in lender.ports)


def test_totals_are_added_up_and_stay_when_a_worker_ends(lender: Lender, status: WorkersStatus) -> None:
    totals_of(lender.one).joins, totals_of(lender.other).joins = 3, 4
    totals_of(lender.one).drops["queue late"] = 2
    refusals.count("tests")
    counted = again(status).count()
    assert (counted.totals.joins, counted.totals.drops["queue late"]) == (7, 2)
    # Both are this process here.
    assert counted.refusals["tests"] == 2 * refusals.counts()["tests"]
    assert [worker["answers"] for worker in counted.workers] == [True, True]
    # What it counts until its end is told at its end.
    third = LentPorts(lender.server)
    show(third).totals.joins = 5
    third.ports.close()
    soon(lambda: len(lender.server.workers) == 2)
    assert again(status).count().totals.joins == 12
    assert len(status._told) == 2


def test_a_worker_that_was_killed_stays_counted(lender: Lender, status: WorkersStatus) -> None:
    totals_of(lender.one).joins = 3
    status.count()
    lender.one.ports._channel.close()
    soon(lambda: len(lender.server.workers) == 1)
    assert again(status).count().totals.joins == 3


def test_a_worker_that_hangs_is_shown_so_and_holds_up_nobody(
    lender: Lender, status: WorkersStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    totals_of(lender.one).joins = 3
    lender.one.join(key("alice"))
    lender.other.join(key("bob"))
    status.count()
    status.look()
    monkeypatch.setattr(workers_status, "TIMEOUT", 0.02)
    lender.one.ports.shown = Deaf()
    counted = again(status).count()
    assert sorted(worker["answers"] for worker in counted.workers) == [False, True]
    assert counted.totals.joins == 3
    own = again(status).look()
    # What was known of its session is shown, but nothing that changes with each moment.
    assert own(port_of(lender, "alice"))["wire"] == 2
    assert own(port_of(lender, "alice"))["heard"] is None
    assert "heard" not in own(port_of(lender, "bob"))
    with pytest.raises(NoSuchClient, match="no answer"):
        status.history(port_of(lender, "alice"))


def test_of_a_worker_that_never_answered_the_sessions_are_shown(
    lender: Lender, status: WorkersStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_status, "TIMEOUT", 0.02)
    lender.one.link.pid = 11
    lender.one.ports.shown = None
    lender.one.join(key("alice"))
    assert status.look()(port_of(lender, "alice")) == {"worker": 11}


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"totals": {}, "refusals": {}},
        {"totals": {**Totals().values(), "joins": "many"}, "refusals": {}},
        {"totals": Totals().values(), "refusals": {"x": "many"}},
        {"totals": Totals().values(), "refusals": {str(number): 1 for number in range(1000)}},
        {"totals": Totals().values(), "refusals": []},
        {"totals": {**Totals().values(), "drops": {"x": "many"}}, "refusals": {}},
        {"totals": {**Totals().values(), "drops": {str(number): 1 for number in range(1000)}}, "refusals": {}},
    ],
)
def test_counts_that_are_malformed_are_not_taken(lender: Lender, status: WorkersStatus, said: Message) -> None:
    totals_of(lender.one).joins = 3
    status.count()
    with pytest.raises(ChannelError):
        status.hear(lender.one.link, said)
    assert status.count().totals.joins == 3


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"sessions": 7},
        {"sessions": [[1]], "next": None},
        {"sessions": [], "next": 0},
        {"sessions": [], "next": "x"},
    ],
)
def test_sessions_that_are_malformed_end_nothing(lender: Lender, status: WorkersStatus, said: Message) -> None:
    class Broken(Deaf):
        def answer(self, verb: str, message: Message) -> Message:
            return said

    lender.one.ports.shown = Broken()
    lender.one.join(key("alice"))
    assert again(status).look()(port_of(lender, "alice")) == {"worker": None}
    assert not lender.hung


def test_what_a_worker_is_asked(lender: Lender, status: WorkersStatus) -> None:
    shown = lender.one.ports.shown
    assert shown is not None
    with pytest.raises(DeviceError, match="no session"):
        shown.answer("history", {"port": 4711})
    with pytest.raises(ChannelError, match="nobody knows"):
        shown.answer("fly", {})


def test_all_who_ask_at_once_ask_the_workers_once(lender: Lender, status: WorkersStatus) -> None:
    asked: list[str] = []

    class Counting(Deaf):
        def answer(self, verb: str, message: Message) -> Message:
            asked.append(verb)
            return {"totals": Totals().values(), "refusals": {}}

    lender.one.ports.shown = Counting()
    again(status)
    gevent.joinall([gevent.spawn(status.count) for _ in range(10)], raise_error=True)
    assert asked == ["counted"]


def test_workers_are_told_to_read_their_files_again(lender: Lender) -> None:
    read: list[int] = []
    lender.one.ports.on_reload = lambda: read.append(1)
    lender.other.ports.on_reload = lambda: read.append(2)
    lender.server.reload()
    soon(lambda: sorted(read) == [1, 2])


def test_events_are_told_if_there_is_room(lender: Lender, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Message] = []
    lender.server.on_event = lambda link, message: heard.append(message)
    assert lender.one.ports.offer("event", {"text": "x"})
    soon(lambda: heard)
    # Nobody reads: a flood of them fills nothing, and the channel stays whole.
    sent = 0
    while lender.one.ports.offer("event", {"text": "x" * 1000}):
        sent += 1
    assert sent < 5000
    assert not lender.one.ports._channel.failure
    soon(lambda: len(heard) == sent + 1)
    assert lender.one.ports.offer("event", {"text": "x"})
    lender.one.ports._channel.close()
    assert not lender.one.ports.offer("event", {})
