"""Which of several servers is used, what is logged of the others, and what the error says if none is there."""

from __future__ import annotations

import pytest

from etherws.client.attempt import RemoteServer
from etherws.client.servers import Servers
from etherws.errors import ConnectError, NotAdmitted
from etherws.events import event_of
from etherws.features import Membership
from etherws.tunnel.connection import Connection
from etherws.tunnel.tap import Tap

TAP, LINK = object.__new__(Tap), object.__new__(Connection)
MEMBER = Membership(1, 4, "a" * 22)


class Answers(RemoteServer):
    """A server that gives the same answer to each attempt."""

    def __init__(self, name: str, answer: Connection | Exception, wait: float = 0.0) -> None:
        self.name = self.target = name
        self.resume = f"token of {name}"
        self.answer = answer
        self.asked: list[Membership | None] = []
        if isinstance(answer, ConnectError):
            answer.wait = wait

    def go_on_as(self, token: str) -> None:
        """As that of RemoteServer."""
        self.resume = token

    def connect(self, tap: Tap | None = None, membership: Membership | None = None) -> Connection:
        """Give it."""
        self.asked.append(membership)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_the_first_that_lets_us_in_is_used(caplog: pytest.LogCaptureFixture) -> None:
    servers = Servers([Answers("a", ConnectError("down")), Answers("b", LINK), Answers("c", KeyError())])
    tokens = servers.tokens()
    assert list(tokens) == ["a", "b", "c"]
    servers.go_on_with({**tokens, "b": "token of before"})
    assert servers.tokens() == {"a": "token of a", "b": "token of before", "c": "token of c"}
    for _ in range(3):
        assert servers.connect(TAP, log_failure=False) == ("b", LINK)
    # Why the first one is left out, once.
    assert caplog.messages == ["cannot connect to a: down; trying again"]


def test_further_connections_go_to_the_server_that_let_the_first_one_in(caplog: pytest.LogCaptureFixture) -> None:
    assert Servers([]).members == 0
    first, second = Answers("a", ConnectError("down")), Answers("b", LINK)
    servers = Servers([first, second])
    servers.connect(TAP, MEMBER, log_failure=False)
    first.answer, second.members = LINK, 4
    assert servers.members == 4
    assert servers.join(TAP, MEMBER) is LINK
    assert (first.asked, second.asked) == ([MEMBER], [MEMBER, MEMBER])
    second.answer = NotAdmitted("not you")
    with pytest.raises(NotAdmitted):
        servers.join(TAP, MEMBER)
    second.answer = KeyError()
    with pytest.raises(ConnectError, match="unexpected KeyError"):
        servers.join(TAP, MEMBER)
    # Why there are fewer is said once, and shown while it lasts.
    caplog.clear()
    for text in ("only two", "only two", ""):
        servers.warn("connections", text)
        assert servers.link.warnings == [text] * bool(text)
    assert caplog.messages == ["only two"]


def test_a_server_that_drains_comes_last_once() -> None:
    first, second, third = (Answers(name, LINK) for name in "abc")
    servers = Servers([first, second, third])
    assert servers.connect(TAP, log_failure=False)[0] == "a"
    servers.drains()
    second.answer = ConnectError("down")
    assert servers.connect(TAP, log_failure=False)[0] == "c"
    # The last one drains: the one behind it is the first.
    servers.drains()
    assert servers.connect(TAP, log_failure=False)[0] == "a"
    # A loss that is not a drain begins with the first, as ever.
    second.answer = LINK
    servers.drains()
    assert servers.connect(TAP, log_failure=False)[0] == "b"
    assert servers.connect(TAP, log_failure=False)[0] == "a"
    # It is used if no other is there; the state says where we are.
    third.answer = second.answer = ConnectError("down")
    servers.drains()
    assert servers.connect(TAP, log_failure=False)[0] == servers.link.server == "a"


def test_a_failure_is_an_event(caplog: pytest.LogCaptureFixture) -> None:
    broken = Answers("a", ConnectError("down"))
    broken.proxy = "http://proxy:3128"
    servers = Servers([broken, Answers("b", LINK)])
    servers.connect(TAP, log_failure=True)
    fields = {"server": "a", "reason": "down", "proxy": "http://proxy:3128", "attempts": 1}
    assert event_of(caplog.records[0]) == ("failed", fields)
    # Connected, but not to the first.
    assert servers.link.last_error == "a: down"
    servers.refused("b", NotAdmitted("b: wrong password"))
    refused = {"server": "b", "reason": "b: wrong password", "proxy": None, "attempts": 1}
    assert event_of(caplog.records[1]) == ("failed", refused)


def test_without_any_the_error_has_the_reason_of_each(caplog: pytest.LogCaptureFixture) -> None:
    servers = Servers([Answers("a", ConnectError("busy"), 9.0), Answers("b", NotAdmitted("no"), 3.0)])
    with pytest.raises(ConnectError) as caught:
        servers.connect(TAP, log_failure=False)
    assert (str(caught.value), caught.value.wait) == ("a: busy; nor to b: no", 3.0)
    assert not isinstance(caught.value, NotAdmitted)
    assert not caplog.messages
    with pytest.raises(NotAdmitted):
        Servers([Answers("a", NotAdmitted("no"))]).connect(TAP, log_failure=True)
    assert caplog.messages == ["cannot connect to a: no; trying again"]


def test_a_mistake_of_ours_is_a_failure_like_others(caplog: pytest.LogCaptureFixture) -> None:
    servers = Servers([Answers("a", KeyError("x\x1b")), Answers("b", LINK)])
    assert servers.connect(TAP, log_failure=False) == ("b", LINK)
    assert caplog.messages[0].startswith("unexpected error; please report it\nTraceback")
    assert caplog.messages[1] == "cannot connect to a: unexpected KeyError: 'x\\x1b'; trying again"


def test_a_refusal_after_the_101_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    Servers([]).refused("a", NotAdmitted("a: wrong password"))
    assert caplog.messages == ["cannot connect to a: wrong password"]
