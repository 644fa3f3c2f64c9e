"""systemd's protocol, against a socket that plays systemd."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from etherws.kernel import service_manager


class Manager:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.settimeout(10)
        self.socket.bind(address)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)

    def next(self) -> tuple[list[str], list[int]]:
        """The lines and the descriptors of a message."""
        text, descriptors, _, _ = socket.recv_fds(self.socket, 4096, 253)
        return text.decode().split("\n"), descriptors


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "file" else f"\0etherws-test-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", address.replace("\0", "@"))
    found = Manager(address)
    with found.socket:
        yield found


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_manager, "_deaf_until", 0.0)


def close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def test_states_go_in_one_message(manager: Manager) -> None:
    assert service_manager.notify("READY=1", "STATUS=3 tunnels")
    assert manager.next() == (["READY=1", "STATUS=3 tunnels"], [])


def test_a_reload_has_its_time(manager: Manager) -> None:
    assert service_manager.reloading()
    state, time = manager.next()[0]
    assert state == "RELOADING=1"
    assert re.fullmatch("MONOTONIC_USEC=[0-9]{6,}", time)


@pytest.mark.parametrize("address", [None, "", "vsock:2:3", "/nowhere/notify"])
def test_without_systemd_nobody_is_told(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not service_manager.notify("READY=1")
    assert not service_manager.keep("port-1", 0)
    assert not service_manager.drop("port-1")


def test_a_manager_that_does_not_read_is_not_waited_for(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_manager, "SEND_TIMEOUT", 0.01)
    # Linux queues net.unix.max_dgram_qlen messages, 10 or 512.
    assert not all(service_manager.notify("WATCHDOG=1") for _ in range(10_000))


def test_a_manager_that_does_not_read_is_waited_for_once(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_manager, "SEND_TIMEOUT", 0.01)
    while service_manager.notify("WATCHDOG=1"):
        pass
    # No socket takes that for a timeout.
    monkeypatch.setattr(service_manager, "SEND_TIMEOUT", -1)
    assert not any(service_manager.drop(f"port-{number}") for number in range(200))
    manager.next()
    assert service_manager.notify("WATCHDOG=1")
    monkeypatch.setattr(service_manager, "_deaf_until", 0.0)
    with pytest.raises(ValueError, match="Timeout"):
        service_manager.notify("WATCHDOG=1")


def test_kept_descriptors_go_along_under_their_name(manager: Manager) -> None:
    with open(os.devnull) as file, socket.socket() as sock:
        assert service_manager.keep("port-7", file.fileno(), sock.fileno())
        lines, descriptors = manager.next()
        assert sorted(lines) == ["FDNAME=port-7", "FDPOLL=0", "FDSTORE=1"]
        assert [os.fstat(one).st_ino for one in descriptors] == [
            os.fstat(one).st_ino for one in (file.fileno(), sock.fileno())
        ]
        close(descriptors)


def test_more_descriptors_than_a_message_takes_go_in_several(manager: Manager) -> None:
    assert service_manager.keep("rates", *[manager.socket.fileno()] * 300)
    for count in (253, 47):
        lines, descriptors = manager.next()
        assert "FDNAME=rates" in lines
        assert len(descriptors) == count
        close(descriptors)


def test_dropped_ones_are_named(manager: Manager) -> None:
    assert service_manager.drop("port-7")
    assert manager.next() == (["FDSTOREREMOVE=1", "FDNAME=port-7"], [])


@pytest.mark.parametrize("name", ["", "a:b", "a\nb", "ä", "x" * 256])
def test_a_name_that_systemd_refuses_is_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for descriptors"):
        service_manager.keep(name, 0)
    with pytest.raises(ValueError, match="is no name for descriptors"):
        service_manager.drop(name)


@pytest.mark.parametrize(
    ("environ", "size"),
    [
        ({}, 0),
        ({"FDSTORE": "4096"}, 0),
        ({"NOTIFY_SOCKET": "/run/systemd/notify"}, 0),
        ({"NOTIFY_SOCKET": "/run/systemd/notify", "FDSTORE": "4096"}, 4096),
        ({"NOTIFY_SOCKET": "/run/systemd/notify", "FDSTORE": "0"}, 0),
        ({"NOTIFY_SOCKET": "/run/systemd/notify", "FDSTORE": "-1"}, 0),
        ({"NOTIFY_SOCKET": "/run/systemd/notify", "FDSTORE": "many"}, 0),
    ],
)
def test_the_size_of_the_store(environ: dict[str, str], size: int) -> None:
    assert service_manager.store_size(environ) == size


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
    ],
)
def test_how_often_the_watchdog_is_fed(environ: dict[str, str], interval: float | None) -> None:
    assert service_manager.watchdog_interval(environ) == interval


#: Run with descriptors that begin at 3, as systemd would: what is found by name; then whether a program that is started
#: has them, whether a second look finds any, and whether a variable is left.
TAKE = """
import os, subprocess, sys
from etherws.kernel import service_manager
if os.environ.get("LISTEN_PID") == "me":
    os.environ["LISTEN_PID"] = str(os.getpid())
print(service_manager.inherited())
print([os.get_inheritable(number) for number in (3, 4, 5)], service_manager.inherited())
print([name for name in os.environ if name.startswith("LISTEN_")])
"""


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({"LISTEN_PID": "me", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:b:a"}, {"a": [3, 5], "b": [4]}),
        ({"LISTEN_PID": "me", "LISTEN_FDS": "3"}, {"unknown": [3, 4, 5]}),
        ({"LISTEN_PID": "me", "LISTEN_FDS": "3", "LISTEN_FDNAMES": "a:"}, {"a": [3], "unknown": [4, 5]}),
        ({"LISTEN_PID": "me", "LISTEN_FDS": "9", "LISTEN_FDNAMES": "a:b:c:d"}, {"a": [3], "b": [4], "c": [5]}),
        ({"LISTEN_PID": "me", "LISTEN_FDS": "1", "LISTEN_PIDFDID": "7"}, {"unknown": [3]}),
        ({"LISTEN_PID": "me", "LISTEN_FDS": "no"}, {}),
        ({"LISTEN_PID": "1", "LISTEN_FDS": "3"}, {}),
        ({"LISTEN_FDS": "3"}, {}),
        ({}, {}),
    ],
)
def test_what_systemd_passes_is_found_by_name(environ: dict[str, str], found: dict[str, list[int]]) -> None:
    # bash opens the three, and what Python had open is closed.
    shell = 'exec 3</dev/null 4</dev/null 5</dev/null; exec "$@"'
    printed = subprocess.run(
        ["bash", "-c", shell, "bash", sys.executable, "-c", TAKE],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.splitlines()
    inheritable = [not any(number in numbers for numbers in found.values()) for number in (3, 4, 5)]
    assert printed == [str(found), f"{inheritable} {{}}", "[]"]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/run/etherws/server-lan", "lan"),
        ("/run/etherws/server-a-b:/run/other", "a-b"),
        ("/run/etherws/client-lan", ""),
        ("/run/gunicorn", ""),
        ("", ""),
    ],
)
def test_the_instance_of_the_unit(monkeypatch: pytest.MonkeyPatch, folder: str, name: str) -> None:
    monkeypatch.setenv("RUNTIME_DIRECTORY", folder)
    assert service_manager.instance("server") == name
