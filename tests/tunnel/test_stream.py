"""A plain stream on a real socket, and the fake that stands in for it elsewhere."""

from __future__ import annotations

import contextlib
import socket

import gevent
import pytest

from etherws.tunnel.stream import PlainStream, Stream, connection_lost
from tests.lab.hosts import PATIENCE
from tests.lab.sockets import gevent_pair
from tests.lab.streams import FakeStream


def fill(stream: PlainStream, buffers: list[memoryview]) -> int:
    """Write until the kernel takes no more; return how many bytes it took."""
    size = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            size += stream.write(buffers)
    return size


def test_a_write_takes_what_the_kernel_takes() -> None:
    near, far = gevent_pair()
    with near, far:
        stream = PlainStream(near)
        buffers = [memoryview(bytes(1 << 20)), memoryview(b"more")]
        assert stream.encode(buffers) is buffers
        size = stream.write(buffers)
        assert 0 < size < 1 << 20
        size += fill(stream, buffers)
        with pytest.raises(BlockingIOError):
            stream.write(buffers)
        writable = stream.writable()
        waiting = gevent.spawn(gevent.get_hub().wait, writable)
        gevent.sleep(0)
        assert not waiting.ready()
        while size:
            size -= len(far.recv(1 << 20))
        waiting.get(timeout=PATIENCE)
        writable.close()


def test_it_reads_and_ends_as_its_socket() -> None:
    near, far = gevent_pair()
    with far:
        stream = PlainStream(near)
        readable = stream.readable()
        far.sendall(b"some bytes")
        with gevent.Timeout(PATIENCE):
            gevent.get_hub().wait(readable)
            space = bytearray(4)
            assert stream.recv_into(space) == 4
            assert bytes(space) + stream.recv(100) == b"some bytes"
            assert stream.drained
            stream.sendall(b"answer")
            stream.shutdown(socket.SHUT_WR)
            assert far.recv(100) + far.recv(100) == b"answer"
        readable.close()
        # What an HTTP server asks for besides.
        assert stream.getpeername() == ""
        stream.close()
        assert near.fileno() == -1


def test_an_error_says_why_as_well_as_it_can() -> None:
    for error, words in [
        (ConnectionResetError(104, "Connection reset by peer"), "Connection reset by peer"),
        (OSError("words alone"), "words alone"),
        (BrokenPipeError(), "BrokenPipeError"),
    ]:
        assert str(connection_lost(error)) == f"connection lost: {words}"
        assert connection_lost(error).code is None


def test_the_fake_has_what_the_protocol_asks_for() -> None:
    names = {name for name in vars(Stream) if not name.startswith("_")}
    assert len(names) >= 10
    near, far = gevent_pair()
    with near, far:
        for stream in (FakeStream(), PlainStream(near)):
            assert names <= set(dir(stream))
    fake = FakeStream(b"piece")
    assert fake.recv(3) + fake.recv(3) == b"piece"
    fake.sendall(b"sent")
    assert fake.sent == b"sent"
