"""Asking a process by its control socket: what it says; and if it hangs, has died, or is another program."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from etherws.cli.operate import control
from etherws.cli.operate.control import Control
from etherws.errors import ControlError, NoAnswer, NotAllowed, NotRunning
from tests.lab.control import fake, foreign
from tests.lab.subjects import FakeServer


def test_what_a_process_says_and_is_told(short_folder: Path) -> None:
    subject = FakeServer(3, 1)
    with fake(short_folder / "control", subject):
        process = Control(str(short_folder / "control"), "server-lan")
        status = process.get("/status")
        assert (status["role"], len(status["sessions"]), len(status["parked"])) == ("server", 3, 1)
        assert process.post("/kick", client="client-1", seconds=5.0) == {"ended": ["client-1"]}
        assert subject.told == [("kick", "client-1", 5.0, "the control socket")]
        with pytest.raises(ControlError, match="no client is called 'nobody'"):
            process.post("/kick", client="nobody", seconds=0)
        with pytest.raises(ControlError, match="there is nothing at this path"):
            process.get("/nothing")
        assert process.process() == os.getpid()
    with pytest.raises(NotRunning, match="server-lan does not run: there is no /"):
        process.get("/status")


def test_events_are_followed_to_the_end_of_the_process(short_folder: Path) -> None:
    with fake(short_folder / "control", FakeServer()) as process:
        process.add("join", "one")
        process.add("leave", "two")
        events = Control(str(short_folder / "control"), "server-lan").follow(0)
        found: list[str] = []
        while len(found) < 3:
            # None is a sign of life.
            if (values := next(events)) is not None:
                found.append(values["text"])
                if found[-1] == "two":
                    process.add("join", "three")
        assert found == ["one", "two", "three"]
    with pytest.raises(NotRunning, match="server-lan has ended"):
        list(events)


def hang(over: threading.Event) -> Callable[[socket.socket], object]:
    """A process that takes a question and says nothing."""
    return lambda _: over.wait(10)


def test_a_process_that_hangs_is_named_in_time(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TIMEOUT", 0.05)
    monkeypatch.setattr(control, "SILENCE", 0.05)
    over = threading.Event()
    with foreign(short_folder / "control", hang(over)):
        process = Control(str(short_folder / "control"), "server-lan")
        words = rf"server-lan does not answer within 0.05 s \(process {os.getpid()}\): it hangs, or is stopped"
        with pytest.raises(NoAnswer, match=words) as caught:
            process.get("/status")
        assert caught.value.exit_status == 75
        with pytest.raises(NoAnswer, match=words):
            next(process.follow(0))
        over.set()


def test_a_process_that_answers_slowly_without_end_is_cut(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TIMEOUT_TOTAL", 0.1)
    over = threading.Event()

    def trickle(connection: socket.socket) -> None:
        while not over.wait(0.01):
            connection.send(b"x")

    with foreign(short_folder / "control", trickle):
        with pytest.raises(NoAnswer, match=r"does not answer within 0\.1 s"):
            Control(str(short_folder / "control")).get("/status")
        over.set()


def test_a_queue_of_connections_that_is_full_is_a_hang(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "TIMEOUT", 0.05)
    path = str(short_folder / "control")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(path)
        listener.listen(0)
        waiting.connect(path)
        with pytest.raises(NoAnswer, match="takes no connection within"):
            Control(path).get("/status")


ANSWERS: dict[str, tuple[bytes, type[ControlError], str]] = {
    "no HTTP": (b"220 mail.example ESMTP\r\n\r\n", ControlError, "is not etherws: 220 mail.example"),
    "control characters": (b"\x1b[2J\r\n\r\n", ControlError, r"is not etherws: \?\[2J"),
    "no JSON": (b"HTTP/1.1 200 OK\r\n\r\n<html>", ControlError, "gave no whole answer"),
    "a list": (b"HTTP/1.1 200 OK\r\n\r\n[1]", ControlError, "gave no whole answer"),
    "deep": (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 200_000, ControlError, "gave no whole answer"),
    "nothing": (b"", NotRunning, "has ended without an answer"),
    "a part": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", NotRunning, "has ended without an answer"),
    "a part of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", NotRunning, "has ended"),
    "an error": (b'HTTP/1.1 409 Conflict\r\n\r\n{"error": "no\\u001b[m page"}', ControlError, "no.* page"),
    "an error of others": (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", ControlError, "it answers 502 Bad Gateway"),
    "too much": (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 3000, ControlError, "its answer is endless"),
}  # fmt: skip


@pytest.mark.parametrize("case", ANSWERS)
def test_what_is_no_answer_of_etherws(short_folder: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    data, kind, words = ANSWERS[case]
    monkeypatch.setattr(control, "ANSWER_MAX", 2000 if case == "too much" else 1 << 20)

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(data)

    with foreign(short_folder / "control", talk):
        with pytest.raises(kind, match=words) as caught:
            Control(str(short_folder / "control"), "server-lan").get("/status")
        assert "\x1b" not in str(caught.value)
        if case in ("an error", "nothing", "no HTTP"):
            with pytest.raises(kind, match=words):
                next(Control(str(short_folder / "control"), "server-lan").follow(0))


def test_an_event_without_end_is_cut(short_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "LINE_MAX", 100)

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\ndata: " + b"x" * 1000)

    with foreign(short_folder / "control", talk), pytest.raises(ControlError, match="an event is too long"):
        next(Control(str(short_folder / "control")).follow(0))


def test_a_socket_that_was_left_and_what_is_none(short_folder: Path) -> None:
    path = short_folder / "control"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(NotRunning, match=r"nobody listens at .*, which a process that was killed has left") as caught:
        Control(str(path), "server-lan").get("/status")
    assert caught.value.exit_status == 69
    path.unlink()
    path.write_text("x")
    # No process has left that: it never was a control socket.
    for other in (path, short_folder):
        with pytest.raises(ControlError, match=f"^{other} is not a socket; name the file") as error:
            Control(str(other)).get("/status")
        assert not isinstance(error.value, NotRunning)
    with pytest.raises(NotRunning, match=f"^nothing runs: there is no {path}x$"):
        Control(f"{path}x").get("/status")
    with pytest.raises(ControlError, match=r"cannot ask .*path too long"):
        Control(f"/tmp/{'x' * 200}").get("/status")


@pytest.mark.parametrize(
    ("owner", "who"),
    [(0, "only root"), (os.getuid() or 1, "only root and "), (4_000_000, "only root and the user 4000000")],
)
def test_who_may_ask_is_said(short_folder: Path, monkeypatch: pytest.MonkeyPatch, owner: int, who: str) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    path = short_folder / "control"
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(os, "stat", lambda _: os.stat_result((0o140600, 1, 1, 1, owner, 0, 0, 0, 0, 0)))
    with pytest.raises(NotAllowed, match=rf"server-lan: {who}.* may ask it; try sudo") as caught:
        Control(str(path), "server-lan").get("/status")
    assert caught.value.exit_status == 77

    def unseen(_: str) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "stat", unseen)
    with pytest.raises(NotAllowed, match="server-lan: only root may ask it"):
        Control(str(path), "server-lan").get("/status")
