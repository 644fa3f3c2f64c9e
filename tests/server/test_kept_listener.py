"""The listening socket that outlives the process."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from etherws.kernel.store import Store
from etherws.server.kept_listener import NAME, KeptListener

HERE = "127.0.0.1"


def listener(address: str | None, port: int = 0, *found: int) -> tuple[KeptListener, Store]:
    store = Store({NAME: list(found)} if found else {})
    return KeptListener(store, address, port), store


def kept(store: Store) -> int:
    """What the next process has."""
    return os.dup(store._kept[NAME][0])


def end(one: KeptListener, store: Store) -> int:
    """The process ends, and another one comes; return what that has."""
    fd = kept(store)
    store.handing_over = True
    one.close()
    one.socket.close()
    os.close(store._kept[NAME][0])
    return fd


def close(one: KeptListener) -> None:
    one.close()
    one.socket.close()


def test_connections_wait_for_the_next_process() -> None:
    one, store = listener(HERE)
    port = one.socket.getsockname()[1]
    fd = end(one, store)
    with socket.create_connection((HERE, port)) as client:
        again, store = listener(HERE, port, fd)
        assert again.socket.getsockname() == (HERE, port)
        connection, address = again.socket.accept()
        assert address == client.getsockname()
        connection.close()
    close(again)
    assert NAME not in store._kept
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, port))


@pytest.mark.parametrize(
    ("before", "after"),
    [(HERE, "127.0.0.2"), (HERE, None), (None, HERE), (HERE, "unix:@etherws-test-kept"), ("::1", HERE)],
)
def test_another_place_is_listened_at(before: str | None, after: str, caplog: pytest.LogCaptureFixture) -> None:
    if before == "::1" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    one, store = listener(before)
    port = one.socket.getsockname()[1]
    again, _ = listener(after, port, end(one, store))
    assert again.socket.getsockname()[:2] != (before, port)
    assert "no longer listening on" in caplog.text
    close(again)


def test_another_port_is_listened_at() -> None:
    one, store = listener(HERE)
    first = one.socket.getsockname()[1]
    probe = socket.create_server((HERE, 0))
    port = probe.getsockname()[1]
    probe.close()
    again, _ = listener(HERE, port, end(one, store))
    assert again.socket.getsockname()[1] == port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, first))
    close(again)


def test_all_addresses_stay_all_addresses() -> None:
    one, store = listener(None)
    port = one.socket.getsockname()[1]
    again, _ = listener(None, port, end(one, store))
    assert again.socket.getsockname()[1] == port
    close(again)


def test_a_name_that_cannot_be_found_at_present_is_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    one, store = listener("localhost")
    port = one.socket.getsockname()[1]
    fd = end(one, store)

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    again, _ = listener("localhost", port, fd)
    assert again.socket.getsockname()[1] == port
    close(again)


@pytest.mark.parametrize("form", ["unix:{}", "unix:@{}"])
def test_a_unix_socket_and_its_file_stay(tmp_path: Path, form: str) -> None:
    path = tmp_path / "sock"
    address = form.format(path)
    one, store = listener(address)
    fd = end(one, store)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(address.removeprefix("unix:").replace("@", "\0"))
        again, store = listener(address, 0, fd)
        again.socket.accept()[0].close()
    close(again)
    assert not path.exists()


def test_a_unix_socket_whose_file_was_removed_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    one, store = listener(f"unix:{path}")
    fd = end(one, store)
    path.unlink()
    again, _ = listener(f"unix:{path}", 0, fd)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    close(again)


def test_what_does_not_listen_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = os.pipe()
    one, other = socket.socketpair()
    datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made, _ = listener(HERE, 0, reader, writer, one.detach(), other.detach(), datagram.detach())
    assert made.socket.getsockname()[0] == HERE
    assert caplog.text.count("cannot be used: it is no socket") == 2
    assert caplog.text.count("cannot be used: it does not listen") == 3
    close(made)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)


def test_the_same_place_twice_is_listened_at_once() -> None:
    one, store = listener(HERE)
    port = one.socket.getsockname()[1]
    second = kept(store)
    again, _ = listener(HERE, port, end(one, store), second)
    close(again)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HERE, port))
