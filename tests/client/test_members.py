"""The connections of a link: sessions, queues and a server that are the test's own."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import gevent
import pytest
from gevent.event import AsyncResult

from etherws.client import member_plan, members
from etherws.client.backoff import Backoff
from etherws.client.losses import Losses
from etherws.client.members import QUEUE_LOST, Members
from etherws.close_codes import CloseCode
from etherws.counters import Totals, Values
from etherws.errors import ConnectError, ConnectionClosed, DeviceError, DeviceLost, EtherwsError, NoSuchLink
from etherws.features import Membership
from etherws.settings import ClientSettings, Retry
from tests.lab.hosts import PATIENCE

NAME = "ws://a"


def until(condition: Callable[[], object], what: str) -> None:
    """Let greenlets go on until the condition holds."""
    with gevent.Timeout(PATIENCE, TimeoutError(what)):
        while not condition():
            gevent.sleep(0.001)


class FakeSession:
    """One that carries nothing, and ends when it is told to."""

    made: list[FakeSession]

    def __init__(self, tap: Any, connection: Any, _settings: Any, sink: Any, _totals: Any) -> None:
        self.tap, self.connection, self.sink = tap, connection, sink
        self.over: AsyncResult[EtherwsError | Exception] = AsyncResult()
        self.calls: list[str] = []
        self.ran: dict[str, bool] | None = None
        self.closed: EtherwsError | None = None
        self.age, self.silence, self.waiting = 60.0, 60.0, False
        self.local_address = f"192.0.2.{len(self.made) + 1}"
        self.made.append(self)

    def run(self, **how: bool) -> EtherwsError:
        """Until end()."""
        self.ran = how
        reason = self.over.get()
        assert reason is not None
        if not isinstance(reason, EtherwsError):
            raise reason
        return reason

    def end(self, reason: EtherwsError | Exception) -> None:
        """Let run() return, or raise."""
        if not self.over.ready():
            self.over.set(reason)

    def stop(self) -> None:
        """As a session."""
        self.end(ConnectionClosed("this side is stopping", CloseCode.GOING_AWAY))

    def restart(self) -> None:
        """As a session."""
        self.end(ConnectionClosed("this side restarts", CloseCode.SERVICE_RESTART))

    def retire(self) -> None:
        """As a session."""
        self.calls.append("retired")

    def probe(self, *, urgent: bool) -> None:
        """As a session."""
        self.calls.append(f"probed, {urgent}")

    def close(self, reason: EtherwsError | None = None) -> None:
        """As a session."""
        self.calls.append("closed")
        self.closed = reason

    def status(self) -> Values:
        """What a session shows, of some bytes and one frame that was dropped."""
        return {
            "since": 1000.0,
            "heard": self.silence,
            "round_trip": 0.01,
            "sent": {"bytes": 100, "frames": 1, "super_frames": 0},
            "received": {"bytes": 10, "frames": 1, "super_frames": 0},
            "rates": {"sent": 8.0, "received": 4.0},
            "queue": {"delay": 0.0, "packets": 0, "bytes": 0},
            "drops": {"late": 1},
            "members": 1,
            "connections": [],
        }

    def history(self) -> Values:
        """One row."""
        row = [1.0]
        return {
            "step": 5.0,
            "end": 1.0,
            "sent": row,
            "received": row,
            "round_trip": row,
            "queue_delay": row,
            "drops": [0],
        }

    def counters(self, more: Counter[str], others: tuple[int, int]) -> str:
        """What it was given, with its own."""
        return f"; {100 + others[0]} {10 + others[1]} {dict(more + Counter(late=1))}"

    def summary(self, more: Counter[str]) -> str:
        """What it was given."""
        return f"; {dict(more)}"


class Link:
    """A link, and what the test says of its server: `answers` to each further connection, then all are let in."""

    def __init__(self, count: int, max_age: float = 0.0, given: int | None = None, multi_queue: bool = True) -> None:
        self.answers: list[ConnectError | Callable[[], object]] = []
        self.asked: list[Membership] = []
        self.warned: list[str] = []
        self.queues: list[Mock] = []
        self.tap = self._queue()
        self.tap.spare_queue = lambda: os.open(os.devnull, os.O_RDONLY)
        self.tap.multi_queue, self.tap.name = multi_queue, "ethws0"
        local = Mock(tap=self.tap, sink=lambda: "sink 0", drops=lambda: Counter(dhcp=2), further_queue=self._further)
        servers = SimpleNamespace(
            members=count if given is None else given, join=self._join, warn=lambda kind, text: self.warned.append(text)
        )
        settings, retry = ClientSettings(connections=count, max_age=max_age), Retry(0.001, 0.002)
        founder = member_plan.founding(settings, multi_queue)
        self.totals = Totals()
        self.members = Members(
            local,
            servers,  # type: ignore[arg-type]
            NAME,
            founder,
            settings,
            retry,
            Losses(20),
            self.totals,
        )
        self.founder = founder
        self.ended: list[tuple[str, object]] = []
        self.run = gevent.spawn(
            self.members.run,
            Mock(name="first"),
            lambda reason, session: self.ended.append((str(reason), session)),
        )

    def _queue(self) -> Mock:
        queue = Mock()
        # It belongs to the TAP.
        queue.hold_flows.side_effect = os.close
        queue.detach.return_value = 0
        self.queues.append(queue)
        return queue

    def _further(self) -> tuple[Mock, str]:
        queue = self._queue()
        return queue, f"sink {len(self.queues) - 1}"

    def _join(self, tap: Any, membership: Membership) -> Any:
        assert tap is self.tap
        self.asked.append(membership)
        answer = self.answers.pop(0) if self.answers else Mock
        if isinstance(answer, ConnectError):
            raise answer
        gevent.sleep(0)
        return answer()

    def complete(self) -> list[FakeSession]:
        """Wait until all are there."""
        until(lambda: len(self.members.live) == self.members.count, "all connections")
        return [self.session(number) for number in range(self.members.count)]

    def session(self, number: int) -> FakeSession:
        """The one that this member has now."""
        return self.members.live[number]  # type: ignore[return-value]

    def another(self, number: int, session: FakeSession) -> None:
        """Wait until this member has another session."""
        until(lambda: number in self.members.live and self.session(number) is not session, "the next session")


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Link]]:
    """Makes links."""
    links: list[Link] = []
    FakeSession.made = []
    monkeypatch.setattr(members, "Session", FakeSession)
    monkeypatch.setattr(members, "SETTLED", 0.01)
    monkeypatch.setattr(members, "QUIET", 0.01)

    def make(*arguments: Any, **options: Any) -> Link:
        links.append(Link(*arguments, **options))
        return links[-1]

    yield make
    for each in links:
        each.run.kill()


def closed(words: str = "connection lost", code: int | None = None, reason: str = "") -> ConnectionClosed:
    """How a session ends."""
    return ConnectionClosed(words, code, reason)


def test_one_connection_is_one_session_and_nothing_else(link: Callable[..., Link]) -> None:
    one = link(1)
    (session,) = one.complete()
    until(lambda: session.ran is not None, "the session")
    assert (session.tap, session.sink, session.ran) == (one.tap, "sink 0", {"prepared": True})
    assert one.members.several == ""
    assert one.members.local_addresses == {"192.0.2.1"}
    assert one.members.counts.text() == "; 100 10 {'dhcp': 2, 'late': 1}"
    session.end(closed())
    assert str(one.run.get()) == "connection lost"
    assert one.ended == [("connection lost", session)]
    assert session.calls == ["closed"]
    assert one.asked == []
    assert one.warned == [""]
    one.tap.attach.assert_not_called()


def test_an_unexpected_error_of_the_only_session_is_the_callers(link: Callable[..., Link]) -> None:
    one = link(1)
    one.complete()[0].end(KeyError("mistake"))
    with pytest.raises(KeyError):
        one.run.get()
    assert FakeSession.made[0].calls == ["closed"]


def test_others_join_each_by_a_queue_of_its_own(link: Callable[..., Link], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    four = link(4)
    sessions = four.complete()
    assert four.founder is not None
    assert [tuple(each) for each in four.asked] == [(number, 4, four.founder.id, False) for number in (1, 2, 3)]
    until(lambda: sessions[3].ran is not None, "the last session")
    assert [session.tap for session in sessions] == four.queues
    assert [session.sink for session in sessions] == [f"sink {number}" for number in range(4)]
    assert [session.ran for session in sessions] == [
        {"linked": True, "joining": joining, "prepared": not joining} for joining in (False, True, True, True)
    ]
    assert caplog.messages == ["connected to ws://a by 4 connections"]
    assert four.members.several == " by 4 of 4 connections"
    assert four.members.counts.text() == "; 400 40 {'late': 4, 'dhcp': 2}"


def test_who_is_given_fewer_makes_fewer_and_is_told_so(link: Callable[..., Link]) -> None:
    four = link(4, given=2)
    four.complete()
    assert [each.member for each in four.asked] == [1]
    assert four.warned == ["ws://a: the server gives the link 2 of 4 connections"]
    # A server that gives more than was asked for is not believed.
    assert link(2, given=16).members.count == 2
    # One that knows no links, and an interface that can have one queue only: one connection.
    assert link(4, given=0).members.count == 1
    assert link(4, given=4, multi_queue=False).members.count == 1


def test_a_member_that_is_lost_comes_back_and_the_others_go_on(link: Callable[..., Link]) -> None:
    four = link(4)
    sessions = four.complete()
    busy = ConnectError("Connection refused")
    four.answers = [busy, busy]
    four.queues[2].detach.return_value = 5
    others = [each for number, each in enumerate(sessions) if number != 2]
    sessions[2].end(closed())
    four.another(2, sessions[2])
    four.queues[2].detach.assert_called_once_with()
    four.queues[2].attach.assert_called_once_with()
    assert four.session(2).tap is four.queues[2]
    assert all(each.calls == [] for each in others)
    assert four.totals.drops == {QUEUE_LOST: 5}
    # What it had carried and dropped is not forgotten.
    assert four.members.counts.text() == "; 500 50 {'connection ended': 5, 'late': 5, 'dhcp': 2}"
    assert four.ended == []


def test_the_log_has_one_line_for_a_loss_and_one_for_the_return(
    link: Callable[..., Link], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    two = link(2)
    sessions = two.complete()
    go: AsyncResult[object] = AsyncResult()
    two.answers = [go.get]
    caplog.clear()
    sessions[1].end(closed("nothing heard for 30 s"))
    until(lambda: len(caplog.messages) == 1, "the first line")
    go.set(Mock())
    until(lambda: len(caplog.messages) == 2, "the second line")
    assert caplog.messages == [
        "lost connection 1 to ws://a: nothing heard for 30 s; 1 of 2 are there, trying again",
        "connection 1 to ws://a is there again",
    ]


def test_the_first_one_can_be_lost_too(link: Callable[..., Link]) -> None:
    two = link(2)
    sessions = two.complete()
    sessions[0].end(closed())
    two.another(0, sessions[0])
    two.tap.detach.assert_called_once_with()
    two.tap.attach.assert_called_once_with()
    assert two.session(0).sink == "sink 0"


def test_a_member_is_replaced_before_it_ends(link: Callable[..., Link], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(member_plan, "REPLACE_FROM", 0.001)
    monkeypatch.setattr(member_plan, "REPLACE_UNTIL", 0.001)
    one = link(1, 10.0)
    (first,) = one.complete()
    one.another(0, first)
    second = one.session(0)
    assert second.tap is first.tap is one.tap
    until(lambda: "closed" in first.calls, "the end of the old one")
    assert first.calls == ["retired", "closed"]
    assert isinstance(first.closed, ConnectionClosed)
    assert (first.closed.code, first.closed.tell) == (CloseCode.NORMAL, "replaced")
    one.tap.detach.assert_not_called()
    # The link has not ended by this, and its counters go on.
    assert one.ended == []
    one.another(0, second)
    assert len(FakeSession.made) >= 3


def test_what_still_comes_by_the_old_one_is_waited_for(
    link: Callable[..., Link], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "RETIRED_MAX", 0.05)
    two = link(2)
    sessions = two.complete()
    plan = two.members._plan
    assert plan is not None
    for busy, waiting in ((0.0, False), (60.0, True)):
        session = two.session(1)
        session.silence, session.waiting = busy, waiting
        two.members._enter(1, Mock(), Mock())
        # It ends all the same, after the longest time.
        until(lambda session=session: "closed" in session.calls, "its end")  # type: ignore[misc]
    assert sessions[0].calls == []


def test_the_link_ends_with_its_last_member(link: Callable[..., Link], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    three = link(3)
    sessions = three.complete()
    caplog.clear()
    for session in sessions:
        session.end(closed(f"end of {session.sink}"))
    assert str(three.run.get()) == "end of sink 2"
    assert three.ended == [("end of sink 2", sessions[2])]
    assert all(session.calls == ["closed"] for session in sessions)
    assert three.members.counts.summary(sessions[2]) == "; {'late': 2, 'dhcp': 2}"  # type: ignore[arg-type]
    # The TAP is as it was before: one queue.
    three.queues[0].attach.assert_called_once_with()
    for queue in three.queues[1:]:
        queue.close.assert_called_once_with()
    # No line tells of each one.
    assert caplog.messages == []
    assert three.members.counts.text() == ""
    assert three.members.counts.status() == three.members.counts.history() == {}
    assert three.members.local_addresses == set()


def test_an_interface_that_was_deleted_ends_all(link: Callable[..., Link]) -> None:
    two = link(2)
    sessions = two.complete()
    two.tap.attach.side_effect = DeviceLost("ethws0 is gone")
    for session in sessions:
        session.end(DeviceLost("ethws0 is gone"))
    assert isinstance(two.run.get(), DeviceLost)


def test_a_server_that_drains_gets_rid_of_the_whole_link(link: Callable[..., Link]) -> None:
    three = link(3)
    sessions = three.complete()
    sessions[1].end(closed("closed by the peer", CloseCode.SERVICE_RESTART, "draining"))
    reason = three.run.get()
    assert isinstance(reason, ConnectionClosed)
    assert (reason.code, reason.reason) == (CloseCode.SERVICE_RESTART, "draining")
    assert [words for words, _ in three.ended] == ["closed by the peer"]
    for session in (sessions[0], sessions[2]):
        assert isinstance(session.closed, ConnectionClosed)
        assert session.closed.code == CloseCode.GOING_AWAY
    assert len(three.asked) == 2


def test_another_server_behind_a_balancer_is_said_once_with_the_mend(
    link: Callable[..., Link], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(member_plan, "REFUSED_WAIT", 0.001)
    monkeypatch.setattr(Backoff, "next", lambda *_: 0.001)
    three = link(3)
    three.answers = [NoSuchLink("answered 409 Conflict; have it keep a client's connections on one server")] * 20
    until(lambda: not three.answers, "the attempts")
    assert three.members.log.trouble.startswith("ws://a: 1 of 3 are there; no further connection: answered 409")
    three.complete()
    assert three.members.log.trouble == ""
    assert caplog.messages == [
        "cannot connect to ws://a by a further connection: answered 409 Conflict; have it keep a client's connections"
        " on one server; 1 of 3 are there, trying again",
        "connected to ws://a by 3 connections",
    ]


@pytest.mark.parametrize(("restart", "code"), [(False, CloseCode.GOING_AWAY), (True, CloseCode.SERVICE_RESTART)])
def test_a_stop_ends_all_and_what_was_about_to_join(link: Callable[..., Link], restart: bool, code: int) -> None:
    three = link(3)
    late = Mock()
    go: AsyncResult[object] = AsyncResult()
    three.answers = [Mock, go.get]
    until(lambda: len(three.asked) == 2, "the second attempt")
    sessions = list(FakeSession.made)
    three.members.stop(restart=restart)
    go.set(late)
    reason = three.run.get()
    assert isinstance(reason, ConnectionClosed)
    assert reason.code == code
    assert len(sessions) == len(FakeSession.made) == 2
    assert all(session.calls == ["closed"] for session in sessions)
    late.close.assert_called_once_with(CloseCode.GOING_AWAY)


def test_retired_connections_end_with_the_link(link: Callable[..., Link], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "QUIET", 60.0)
    two = link(2)
    sessions = two.complete()
    two.members._enter(1, Mock(), lambda *_: None)
    two.members.stop(restart=False)
    two.run.get()
    assert sessions[1].calls == ["retired", "closed"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DeviceError("cannot open one more queue: busy"), "cannot open one more queue: busy"),
        (KeyError("mistake"), "unexpected KeyError: 'mistake'"),
    ],
)
def test_a_queue_that_cannot_be_opened_costs_one_connection(
    link: Callable[..., Link], caplog: pytest.LogCaptureFixture, error: Exception, words: str
) -> None:
    two = link(2)
    first, failures = two.members._local.further_queue, [error]
    connections = [Mock(), Mock()]
    two.answers = [connections[0].__call__, connections[1].__call__]
    connections[0].return_value, connections[1].return_value = connections

    def queue() -> tuple[Any, Any]:
        if failures:
            raise failures.pop()
        return first()

    two.members._local.further_queue = queue  # type: ignore[method-assign]
    two.complete()
    connections[0].close.assert_called_once_with(CloseCode.GOING_AWAY)
    assert f"by a further connection: {words}; 1 of 2 are there" in caplog.text


def test_a_mistake_of_ours_in_one_session_ends_that_one_only(
    link: Callable[..., Link], caplog: pytest.LogCaptureFixture
) -> None:
    two = link(2)
    sessions = two.complete()
    sessions[1].end(KeyError("mistake"))
    two.another(1, sessions[1])
    assert "unexpected error; please report it\nTraceback" in caplog.text
    assert two.ended == []


def test_the_status_is_that_of_all_connections_and_of_those_that_are_over(link: Callable[..., Link]) -> None:
    three = link(3)
    sessions = three.complete()
    sessions[1].end(closed())
    three.another(1, sessions[1])
    found = three.members.counts.status()
    assert found["members"] == 3
    assert [each["member"] for each in found["connections"]] == [0, 1, 2]
    assert (found["sent"]["bytes"], found["received"]["bytes"], found["rates"]["sent"]) == (400, 40, 24.0)
    assert found["drops"] == {"late": 4, "dhcp": 2}
    assert found["since"] > 1000
    # One that was replaced, and is not over yet, counts as well.
    three.members._enter(2, Mock(), Mock())
    assert three.members.counts.status()["sent"]["bytes"] == 500
    assert three.members.counts.history()["sent"] == [3.0]
    one = link(1)
    one.complete()
    found = one.members.counts.status()
    assert (found["members"], found["connections"], found["since"]) == (1, [], 1000.0)
    assert found["drops"] == {"late": 1, "dhcp": 2}
    assert one.members.counts.history()["sent"] == [1.0]


def test_a_change_of_the_network_is_told_to_all(link: Callable[..., Link]) -> None:
    two = link(2)
    sessions = two.complete()
    two.members._plan = plan = Mock()
    two.members.probe(urgent=False, by_user=False)
    plan.hurry.assert_not_called()
    two.members.probe(urgent=True, by_user=False)
    plan.hurry.assert_called_once_with(by_user=False)
    two.members.probe(urgent=False, by_user=True)
    assert two.members.local_addresses == {"192.0.2.1", "192.0.2.2"}
    assert [session.calls for session in sessions] == [["probed, False", "probed, True", "probed, False"]] * 2
    one = link(1)
    one.complete()
    one.members.probe(urgent=True, by_user=True)
