"""Which of the sockets that were passed is listened on."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from etherws.server import passed_sockets
from etherws.server.passed_sockets import take


@pytest.fixture
def made() -> Iterator[list[int]]:
    """Descriptors to close, if they are open at the end."""
    numbers: list[int] = []
    yield numbers
    for number in numbers:
        try:
            os.close(number)
        except OSError:
            continue


def listening(made: list[int], host: str = "127.0.0.1") -> tuple[int, int]:
    """A descriptor that listens, and its port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.create_server((host, 0), family=family)
    port = sock.getsockname()[1]
    made.append(sock.detach())
    return made[-1], port


def taken(passed: dict[str, list[int]], address: str | None, port: int, *, chosen: bool = True) -> int | None:
    """The descriptor that is listened on."""
    found = take(passed, address, port, chosen=chosen)
    return None if found is None else found.detach()


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_without_any_there_is_none() -> None:
    assert take({}, None, 80) is None


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("::", None)])
def test_one_of_an_earlier_process_is_used_where_the_options_say(
    made: list[int], host: str, address: str | None
) -> None:
    number, port = listening(made, host)
    assert taken({"listen": [number]}, address, port) == number
    assert is_open(number)


@pytest.mark.parametrize("change", ["port", "address", "all", "unix", "name"])
def test_one_of_an_earlier_process_is_closed_where_they_do_not(
    made: list[int], change: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    number, port = listening(made)
    address: str | None = {"all": None, "unix": "unix:/run/x", "name": "no such name", "address": "127.0.0.2"}.get(
        change, "127.0.0.1"
    )
    assert take({"listen": [number]}, address, port + (change == "port")) is None
    assert not is_open(number)
    assert f"listens at 127.0.0.1:{port} no longer" in caplog.text


def test_a_socket_unit_says_where(made: list[int], caplog: pytest.LogCaptureFixture) -> None:
    (kept, kept_port), (unit, port) = listening(made), listening(made)
    assert taken({"listen": [kept], "etherws-server@lan.socket": [unit]}, None, kept_port, chosen=False) == unit
    assert not is_open(kept)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    # Options that say otherwise are told.
    assert taken({"x": [unit]}, None, 80) == unit
    assert f"listens at 127.0.0.1:{port}, where the socket unit says, and not where --address" in caplog.text


def test_of_several_in_a_unit_one_is_used(made: list[int], caplog: pytest.LogCaptureFixture) -> None:
    (one, port), (other, other_port) = listening(made), listening(made)
    assert taken({"x": [one, other]}, "127.0.0.1", port) == one
    assert not is_open(other)
    assert "WARNING  etherws.server.passed_sockets:passed_sockets.py" in caplog.text
    assert f"listens at 127.0.0.1:{other_port} no longer" in caplog.text


def test_unix_sockets_are_passed_too(made: list[int], tmp_path: Path) -> None:
    for path, name in ((str(tmp_path / "s"), f"unix:{tmp_path / 's'}"), ("\0etherws-passed", "unix:@etherws-passed")):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(path)
        sock.listen()
        assert passed_sockets.name_of(sock) == name
        found = take({"listen": [sock.detach()]}, name, 80)
        assert found is not None
        found.close()


@pytest.mark.parametrize("kind", ["file", "datagram", "not listening", "packet"])
def test_what_is_no_listening_socket_is_said(
    made: list[int], kind: str, caplog: pytest.LogCaptureFixture, network: None
) -> None:
    if kind == "file":
        made.append(os.open("/dev/null", os.O_RDONLY))
    elif kind == "datagram":
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach())
    elif kind == "packet":
        made.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).detach())
    else:
        made.append(socket.socket().detach())
    assert take({"x": made}, None, 80) is None
    assert "passed the descriptor x, which is not a listening TCP or UNIX socket" in caplog.text


def test_descriptors_of_ours_that_are_no_sockets_stay(made: list[int], caplog: pytest.LogCaptureFixture) -> None:
    made.append(os.open("/dev/null", os.O_RDONLY))
    assert take({"port-7": made, "rates": made, "packet-sockets": made}, None, 80) is None
    assert is_open(made[0])
    assert caplog.text == ""
