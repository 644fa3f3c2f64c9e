"""The socket of a socket unit, and what else is passed by its name."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator

import pytest

from etherws.kernel.store import Store
from etherws.server.passed_sockets import UnitListener

NAME = "etherws-server@lan.socket"


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
    sock = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    port = sock.getsockname()[1]
    made.append(sock.detach())
    return made[-1], port


def is_listened(host: str, port: int) -> bool:
    """Whether anybody listens there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        return sock.connect_ex((host, port)) == 0


def test_without_a_socket_unit_there_is_none(made: list[int]) -> None:
    number, _ = listening(made)
    store = Store({"listen": [number], "port-7": [0]})
    assert UnitListener.found(store, None, 80) is None
    assert store.names() == ["listen", "port-7"]


@pytest.mark.parametrize("handing_over", [False, True])
def test_a_socket_unit_says_where(made: list[int], caplog: pytest.LogCaptureFixture, handing_over: bool) -> None:
    (kept, kept_port), (unit, port) = listening(made), listening(made)
    store = Store({"listen": [kept], NAME: [unit]})
    found = UnitListener.found(store, None, kept_port, chosen=False)
    assert found is not None
    assert found.socket.getsockname()[1] == port
    assert not is_listened("127.0.0.1", kept_port)
    assert caplog.text == ""
    # A new image of the process finds it again.
    environ: dict[str, str] = {}
    (copy,) = store.tell(environ)
    assert environ["ETHERWS_HANDOVER"] == f"{copy}:{NAME}"
    store.handing_over = handing_over
    found.close()
    found.socket.close()
    assert is_listened("127.0.0.1", port) == handing_over
    made.append(copy)


@pytest.mark.parametrize(("address", "right"), [("127.0.0.1", True), ("127.0.0.2", False), ("unix:/run/x", False)])
def test_options_that_say_otherwise_are_told(
    made: list[int], caplog: pytest.LogCaptureFixture, address: str, right: bool
) -> None:
    unit, port = listening(made)
    found = UnitListener.found(Store({NAME: [unit]}), address, port)
    assert found is not None
    found.close()
    found.socket.close()
    text = f"listens at 127.0.0.1:{port}, where the socket unit says, and not where --address and --port say"
    assert (text in caplog.text) == (not right)


def test_of_several_in_a_unit_one_is_used(made: list[int], caplog: pytest.LogCaptureFixture) -> None:
    (one, port), (other, other_port) = listening(made), listening(made, "::1")
    same = os.dup(one)
    found = UnitListener.found(Store({NAME: [one, same, other]}), "127.0.0.1", port)
    assert found is not None
    assert found.socket.getsockname()[1] == port
    assert not is_listened("::1", other_port)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert f"does not listen at [::1]:{other_port}" in caplog.text
    found.close()
    found.socket.close()
    assert not is_listened("127.0.0.1", port)


@pytest.mark.parametrize("kind", ["file", "datagram", "not listening", "packet"])
def test_what_is_no_listening_socket_is_said(
    made: list[int], kind: str, caplog: pytest.LogCaptureFixture, network: None
) -> None:
    if kind == "file":
        number = os.open("/dev/null", os.O_RDONLY)
    elif kind == "datagram":
        number = socket.socket(socket.AF_INET, socket.SOCK_DGRAM).detach()
    elif kind == "packet":
        number = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).detach()
    else:
        number = socket.socket().detach()
    assert UnitListener.found(Store({NAME: [number]}), None, 80) is None
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
    assert f"a descriptor of {NAME} that is not a listening TCP or UNIX socket" in caplog.text
