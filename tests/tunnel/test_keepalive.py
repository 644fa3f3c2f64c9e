"""Who is lost and who is not: a keepalive over real TCP, and over a stream whose peer is the test."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from time import monotonic

import gevent
import pytest
from gevent.socket import socket as GeventSocket

from etherws.errors import ConnectionClosed, NetworkChanged
from etherws.tunnel import keepalive as keepalive_module
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import Decoder, Opcode
from etherws.tunnel.keepalive import Keepalive
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.wire import Version1
from tests.lab.hosts import PATIENCE, Host
from tests.lab.peer import masked

PING = 0x89


@contextlib.contextmanager
def connected(host: Host) -> Iterator[tuple[Connection, socket.socket]]:
    """A server's connection over loopback TCP with little room, and the socket of its peer."""
    with contextlib.ExitStack() as stack:
        with host.namespace.inside():
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            peer = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.settimeout(PATIENCE)
        peer.connect(listener.getsockname())
        accepted = listener.accept()[0]
        accepted.setblocking(False)
        connection = Connection(PlainStream(GeventSocket(fileno=accepted.detach())), server=True, wire=Version1())
        stack.callback(connection.close, None)
        stack.callback(connection.lost, ConnectionClosed("over"))
        yield connection, peer


def test_a_peer_that_reads_nothing_but_sends_is_alive_even_if_the_keepalive_is_late(host: Host) -> None:
    """Its closed window is no sign of death, neither for the keepalive nor for the kernel."""
    interval, timeout = 0.2, 0.3
    with connected(host) as (connection, peer), gevent.Timeout(PATIENCE):
        done = threading.Event()

        def speak() -> None:
            with contextlib.suppress(OSError):
                while not done.wait(0.02):
                    peer.sendall(masked(PING, b"here"))

        speaking = threading.Thread(target=speak, daemon=True)
        greenlets: list[gevent.Greenlet[..., object]] = [
            gevent.spawn(Keepalive(connection, interval, timeout).run),
            gevent.spawn(connection.recv),
        ]
        gevent.sleep(0)
        while connection.send_queued([bytes(1000)]):
            pass
        speaking.start()
        try:
            # This process is busy elsewhere, for longer than the peer may be silent: no greenlet runs.
            threading.Event().wait(3 * (interval + timeout))
            # And then for as long as it is not.
            gevent.sleep(2 * (interval + timeout))
            assert [greenlet.exception for greenlet in greenlets] == [None, None]
            assert monotonic() - connection.heard < interval + timeout
        finally:
            done.set()
            speaking.join()
            gevent.killall(greenlets)

        # All that waited arrives once the peer reads.
        def read() -> None:
            with contextlib.suppress(OSError):
                while peer.recv(1 << 16):
                    pass

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        connection.flush()
        assert connection.send_queued([bytes(100)])
        connection.lost(ConnectionClosed("over"))
        connection.close(None)
        reading.join()


def test_a_peer_that_says_nothing_is_lost(host: Host) -> None:
    with connected(host) as (connection, peer), gevent.Timeout(PATIENCE):
        begin = connection.heard
        with pytest.raises(ConnectionClosed, match=r"nothing heard for 0\.[2-9]") as error:
            Keepalive(connection, 0.1, 0.1).run()
        assert not isinstance(error.value, NetworkChanged)
        assert monotonic() - begin >= 0.2
        connection.close(None)
        # It was asked before, and told at the end.
        decoder, kinds = Decoder(server=False, max_message=100), list[int]()
        while size := peer.recv_into(decoder.space()):
            kinds += [opcode for opcode, _ in decoder.received(size)]
        assert kinds == [Opcode.PING, Opcode.CLOSE]


def test_after_a_change_of_the_network_silence_is_short(host: Host) -> None:
    with connected(host) as (connection, peer), gevent.Timeout(PATIENCE):
        keepalive = Keepalive(connection, 1000, 0.2)
        reading = gevent.spawn(connection.recv)
        running = gevent.spawn(keepalive.run)
        try:
            # An answer ends the probe.
            keepalive.probe()
            decoder = Decoder(server=False, max_message=100)
            gevent.sleep(0.01)
            ((_, payload),) = decoder.received(peer.recv_into(decoder.space()))
            peer.sendall(masked(0x8A, bytes(payload)))
            gevent.sleep(0.4)
            assert not running.ready()
            assert connection.delays.round_trip is not None
            # No answer ends the connection.
            keepalive.probe()
            with pytest.raises(NetworkChanged, match="nothing heard for"):
                running.get()
        finally:
            gevent.killall([reading, running])


@pytest.mark.parametrize("busy", [True, False])
def test_after_a_change_of_the_network_a_path_that_acknowledges_is_given_time(
    host: Host, busy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer waits behind what is on its way. Without that, or on a path that is cut, nothing is acknowledged."""
    monkeypatch.setattr(keepalive_module, "PROBE_TIMEOUT", 0.3)
    with connected(host) as (connection, peer), gevent.Timeout(PATIENCE):
        keepalive = Keepalive(connection, 1000, 1000)
        looks = list[float]()
        path = connection.congestion.path

        def look() -> tuple[float, float]:
            looks.append(monotonic())
            return path()

        def take() -> None:
            with contextlib.suppress(OSError):
                while peer.recv(1 << 16):
                    pass

        def send() -> None:
            while busy:
                connection.send_queued([bytes(100)])
                connection.flush()
                gevent.sleep(0.01)

        monkeypatch.setattr(connection.congestion, "path", look)
        taking = threading.Thread(target=take, daemon=True)
        taking.start()
        greenlets: list[gevent.Greenlet[..., object]] = [gevent.spawn(connection.recv), gevent.spawn(send)]
        running = gevent.spawn(keepalive.run)
        try:
            keepalive.probe()
            # When the probe began, and when its time was over.
            while len(looks) < 2:
                gevent.sleep(0.01)
            if busy:
                gevent.sleep(0.1)
                assert not running.ready()
            else:
                with pytest.raises(NetworkChanged, match="nothing heard for"):
                    running.get()
        finally:
            gevent.killall([*greenlets, running])
            connection.lost(ConnectionClosed("over"))
            connection.close(None)
            taking.join()


def test_a_local_address_that_is_gone_ends_the_connection(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(host) as (connection, _):
        assert not connection.local_address_gone()
        monkeypatch.setattr(connection, "local_address_gone", lambda: True)
        keepalive = Keepalive(connection, 1000, 1000)
        keepalive.probe()
        with pytest.raises(NetworkChanged, match="is gone"):
            keepalive.run()


@pytest.mark.parametrize("urgent", [True, False])
def test_a_local_address_that_comes_back_at_once_was_never_gone(
    host: Host, monkeypatch: pytest.MonkeyPatch, urgent: bool
) -> None:
    """As when a lease is renewed by taking it away and setting it anew. Without urgency nobody is in a hurry."""
    monkeypatch.setattr(keepalive_module, "ADDRESS_ABSENCE", 0.01)
    monkeypatch.setattr(keepalive_module, "PROBE_TIMEOUT", 0.01)
    looks, pings = [True, False], list[int]()
    with connected(host) as (connection, _), gevent.Timeout(PATIENCE):
        assert connection.local_address == "127.0.0.1"
        monkeypatch.setattr(connection, "local_address_gone", lambda: looks.pop(0))
        monkeypatch.setattr(connection, "ping", lambda: pings.append(len(looks)))
        keepalive = Keepalive(connection, 1000, 1000)
        keepalive.probe(urgent=urgent)
        running = gevent.spawn(keepalive.run)
        if urgent:
            with pytest.raises(NetworkChanged, match="nothing heard"):
                running.get(timeout=PATIENCE)
        else:
            while not (pings or running.ready()):
                gevent.sleep(0.002)
            gevent.sleep(0.05)
            assert not running.ready()
            running.kill()
        assert pings == [0]
