"""What the kernel tells of a TCP connection."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from etherws.tunnel import tcp_facts
from etherws.tunnel.tcp_facts import TcpFacts, read, slow_start_after_idle


def test_a_connection_of_this_machine_has_facts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as one:
        other, _ = listener.accept()
        with other:
            for _ in range(3):
                one.sendall(b"x")
                assert other.recv(1) == b"x"
            found = read(one)
    assert found.congestion
    assert found.segments >= 1
    assert 500 < found.segment <= found.path_mtu
    assert 0 < found.shortest < 60
    assert 0 < found.round_trip < 60
    assert found.retransmitted <= found.segments


def test_what_is_no_tcp_has_none() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert read(one) == TcpFacts("", 0, 0, 0.0, 0.0, 0, 0)


@pytest.mark.parametrize(("text", "on"), [("1\n", True), ("0\n", False), (None, False)])
def test_the_setting_of_slow_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, on: bool
) -> None:
    path = tmp_path / "setting"
    if text:
        path.write_text(text)
    monkeypatch.setattr(tcp_facts, "_SLOW_START", path)
    assert slow_start_after_idle() == on
