"""Reading an error's body: no server holds the client longer than the time for it, nor than the attempt's deadline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.event import Event

from etherws.client import error_body as module
from etherws.client.error_body import error_body
from etherws.client.http_answer import HttpAnswer
from tests.lab.streams import FakeStream

ANSWER = HttpAnswer(b"HTTP/1.1 500 x\r\nContent-Length: 100", b"some")


class Holding(FakeStream):
    """Says this, and nothing more without an end; or does what `then` does."""

    def __init__(self, said: bytes, then: Callable[[], object]) -> None:
        super().__init__(said)
        self._then = then

    def recv(self, size: int) -> bytes:
        """See Stream."""
        if not self.unread():
            self._then()
        return super().recv(size)


def forever() -> Any:
    """Wait for what never comes."""
    Event().wait()


def reset() -> None:
    """Fail as a connection does."""
    raise ConnectionResetError


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_SECONDS", 0.01)
    assert error_body(Holding(b" words", forever), ANSWER) == b"some words"


def test_the_callers_deadline_ends_it_and_is_over_then() -> None:
    with gevent.Timeout(0.01):
        assert error_body(Holding(b" words", forever), ANSWER) == b"some words"


def test_an_error_ends_it() -> None:
    assert error_body(Holding(b" words", reset), ANSWER) == b"some words"
