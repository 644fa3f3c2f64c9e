"""Who is let in, in one process. Over real connections: tests/system/test_login.py and tests/system/test_trust.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gevent
import pytest

from etherws.access import passwd
from etherws.access.certificates import CERTIFICATE
from etherws.errors import Refused
from etherws.server.authenticate import Authenticator
from etherws.server.login_queue import FREE_FAILURES
from etherws.server.presence import Presence
from etherws.settings import ServerSettings
from tests.lab.environ import environ
from tests.lab.hosts import PATIENCE
from tests.lab.passwords import QUICK
from tests.lab.peer import basic
from tests.lab.sockets import gevent_pair


class Door:
    """A server that asks for passwords and tokens."""

    def __init__(self, folder: Path) -> None:
        self.passwords, self.tokens = folder / "passwords", folder / "tokens"
        passwd.set_password(self.passwords, "alice", "right", cost=QUICK)
        self.token = passwd.add_token(self.tokens, "robot")
        settings = ServerSettings(htpasswd=str(self.passwords), token_file=str(self.tokens))
        self.authenticator = Authenticator(settings)

    def asks(self, authorization: str, address: str = "192.0.2.1", **more: Any) -> Any:
        """The Admission, or the status of the refusal."""
        request = environ(HTTP_AUTHORIZATION=authorization, REMOTE_ADDR=address)
        try:
            return self.authenticator.authenticate(
                {**request, **{f"etherws.{key}": value for key, value in more.items()}}
            )
        except Refused as exc:
            return exc.status[:3]


@pytest.fixture
def door(tmp_path: Path) -> Door:
    """A server."""
    return Door(tmp_path)


def test_a_token_does_not_wait_behind_passwords(door: Door) -> None:
    with door.authenticator._queue.turn("somebody"):
        waits = gevent.spawn(door.asks, basic("alice:right"))
        gevent.idle()
        assert door.asks(f"Bearer {door.token}").identity == "robot"
        assert door.asks("Bearer wrong", "192.0.2.2") == "401"
        assert not waits.ready()
    assert waits.get().identity == "alice"


def test_a_priority_that_may_not_be_set_is_no_error(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    # As in the units of contrib/. gevent has what is raised in its threads logged as an unexpected error.
    errors: list[Any] = []
    monkeypatch.setattr(os, "setpriority", refused)
    monkeypatch.setattr(gevent.get_hub(), "handle_error", lambda *error: errors.append(error))
    assert door.asks(basic("alice:right")).identity == "alice"
    assert errors == []


def test_a_client_that_hangs_up_gives_up_its_place(door: Door) -> None:
    near, far = gevent_pair()
    with near, door.authenticator._queue.turn("somebody"):
        waits = gevent.spawn(door.asks, basic("alice:wrong"), presence=Presence(near))
        gevent.idle()
        assert door.authenticator._queue.waiting() == 1
        far.close()
        assert waits.get(timeout=PATIENCE) == "400"
        assert door.authenticator._queue.waiting() == 0


def test_a_right_token_is_taken_from_a_source_that_fails(door: Door) -> None:
    answers = [door.asks("Bearer wrong") for _ in range(FREE_FAILURES + 1)]
    assert answers == ["401"] * FREE_FAILURES + ["429"]
    assert door.asks(basic("alice:right")) == "429"
    assert door.asks(f"Bearer {door.token}").identity == "robot"


def test_a_source_that_has_to_wait_takes_no_place_in_the_queue(door: Door) -> None:
    for _ in range(FREE_FAILURES):
        assert door.asks("Bearer wrong") == "401"
    with door.authenticator._queue.turn("somebody"):
        assert door.asks(basic("alice:wrong")) == "429"


def test_an_admission_has_no_secret_and_can_be_judged_again(door: Door) -> None:
    alice, robot = door.asks(basic("alice:right")), door.asks(f"Bearer {door.token}")
    assert "right" not in repr(alice)
    assert door.token not in repr(robot)
    judge = door.authenticator.problem
    assert judge(alice) is judge(robot) is None
    # The same password again is another entry: nobody can tell that it is the same.
    passwd.set_password(door.passwords, "alice", "right", cost=QUICK)
    problem = judge(alice)
    assert problem
    assert (str(problem), problem.code) == ("its password was changed", 1008)
    passwd.remove(door.passwords, "alice")
    problem = judge(alice)
    assert problem
    assert (str(problem), problem.code) == ("its user was removed", 1008)
    door.tokens.write_text(door.tokens.read_text().replace("robot:", "android:"))
    problem = judge(robot)
    assert problem
    assert (str(problem), problem.code) == ("its token has another name now", 1012)
    passwd.remove(door.tokens, "android")
    problem = judge(robot)
    assert problem
    assert (str(problem), problem.code) == ("its token was removed", 1008)


def test_one_name_may_have_several_tokens_and_a_password(door: Door) -> None:
    other = passwd.add_token(door.tokens, "second")
    door.tokens.write_text(door.tokens.read_text().replace("second:", "alice:"))
    alice, by_token = door.asks(basic("alice:right")), door.asks(f"Bearer {other}")
    assert alice.identity == by_token.identity == "alice"
    passwd.remove(door.passwords, "alice")
    assert door.authenticator.problem(alice)
    assert door.authenticator.problem(by_token) is None


class Shown:
    """A certificate that a client showed."""

    def __init__(self, name: str | None, problem: str | None = None) -> None:
        self._name, self._problem = name, problem

    def identity(self) -> str | None:
        """Its name."""
        return self._name

    def problem(self) -> str | None:
        """What is wrong with it."""
        return self._problem


def test_a_certificate_must_hold_and_have_a_name(door: Door) -> None:
    authenticator = Authenticator(ServerSettings())
    assert authenticator.authenticate(environ()).identity is None
    admission = authenticator.authenticate({**environ(), CERTIFICATE: Shown("alice")})
    assert admission.identity == "alice"
    for shown, words in ((Shown(None), "has no name"), (Shown("alice", "certificate has expired"), "has expired")):
        with pytest.raises(Refused, match=words) as refusal:
            authenticator.authenticate({**environ(), CERTIFICATE: shown})
        assert refusal.value.status == "403 Forbidden"
    # With a login as well, the name is the login's, and the certificate is remembered.
    both = door.asks(f"Bearer {door.token}", certificate=Shown("alice"))
    assert (both.identity, both.certificate.identity()) == ("robot", "alice")
    both.certificate._problem = "certificate revoked"
    problem = door.authenticator.problem(both)
    assert problem
    assert problem.code == 1008


def test_files_that_change_are_other_objects(door: Door) -> None:
    before = door.authenticator.files()
    assert all(map(lambda a, b: a is b, before, door.authenticator.files()))
    passwd.add_token(door.tokens, "second")
    after = door.authenticator.files()
    assert [a is b for a, b in zip(before, after, strict=True)] == [True, False]
    door.authenticator.reload()
    assert not any(map(lambda a, b: a is b, after, door.authenticator.files()))
