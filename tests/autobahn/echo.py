"""Both ends of the tunnel as echoes, for test suites that speak WebSocket but no Ethernet.

A tunnel drops TEXT, cuts what it receives into records, and answers nothing. Here the same connection, session, framing
and handshakes run between a wire that leaves messages as they are and a device that sends back what it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

from gevent.event import Event
from gevent.pywsgi import WSGIServer

from etherws.client.attempt import RemoteServer
from etherws.client.credentials import Credentials
from etherws.client.proxy_choice import ProxyChoice
from etherws.client.uris import split_uri
from etherws.server import handshake
from etherws.server.http import UPGRADE, Handler
from etherws.settings import DeviceSettings, Trust
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import FIN, Decoder, Encoder, Opcode
from etherws.tunnel.session import Session
from etherws.tunnel.stream import Stream
from etherws.tunnel.wire import Batch, Buffer, Version1

#: The longest message of Autobahn's section 9.
LONGEST = 16 * 1024 * 1024


class Wire(Version1):
    """Messages as they are. The first byte, which the codec below adds and removes, is the opcode."""

    max_message = LONGEST

    def pack_queued(self, packets: Sequence[Buffer]) -> list[Buffer]:
        return list(packets)

    def unpack(self, messages: Sequence[Buffer]) -> Iterator[Sequence[Buffer]]:
        yield messages


class EchoDecoder(Decoder):
    """Shows TEXT as BINARY, since a connection drops everything else."""

    def received(self, size: int) -> list[tuple[int, Buffer]]:
        return [
            (int(Opcode.BINARY), bytes([opcode]) + payload)
            if opcode in (Opcode.TEXT, Opcode.BINARY)
            else (opcode, payload)
            for opcode, payload in super().received(size)
        ]


class EchoEncoder(Encoder):
    """Sends each message by the opcode in its first byte."""

    def data(self, messages: Sequence[Buffer]) -> list[Buffer]:
        out = super().data([memoryview(message)[1:] for message in messages])
        for at, message in enumerate(messages):
            out[2 * at] = bytes([FIN | message[0]]) + bytes(out[2 * at])[1:]
        return out


class EchoConnection(Connection):
    """A connection with the wire and the codec of this module."""

    def __init__(self, stream: Stream, *, server: bool, early: bytes = b"", **_: Any) -> None:
        encoder = EchoEncoder(server=server)
        decoder = EchoDecoder(server=server, max_message=LONGEST)
        super().__init__(stream, server=server, wire=Wire(), early=early, encoder=encoder, decoder=decoder)


class EchoServer(RemoteServer):
    """Connects with such a connection."""

    connection = EchoConnection


class Device:
    """In the TAP's place: what is written to it goes back to the peer."""

    def __init__(self, connection: Connection) -> None:
        self.drops: Counter[str] = Counter()
        self._connection = connection

    def start_carrier_timeout(self, timeout: float) -> None:
        """It has no carrier to lose."""

    def begin(self, *, offload: bool, joining: bool = False) -> None:
        """Nothing to prepare."""

    def on_readable(self, call: object) -> None:
        """See Tap: what comes is in the queue of read_batch()."""

    def quiet(self, seconds: float) -> bool:
        """Never: see Tap."""
        return False

    def read_batch(self, batch: Batch, first: object = None) -> NoReturn:
        """Nothing ever comes by itself."""
        Event().wait()
        raise AssertionError

    def write_batch(self, packets: Sequence[Any]) -> None:
        """Echo."""
        self._connection.send_queued(packets)
        self._connection.flush()


def echo(connection: Connection) -> None:
    """Run a session until either side ends it."""
    device: Any = Device(connection)
    session = Session(device, connection, DeviceSettings(ping_interval=0))
    session.close(session.run())


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The server's side, as a WSGI application."""
    stream, early = environ[UPGRADE](handshake.accept(environ))
    echo(EchoConnection(stream, server=True, early=early))
    return []


def server(port: int = 0) -> WSGIServer:
    """A started server on loopback."""
    running = WSGIServer(("127.0.0.1", port), application, handler_class=Handler, log=None)
    running.start()
    return running


def connect(uri: str) -> Connection:
    """The client's side, connected."""
    where, _, _ = split_uri(uri)
    settings = DeviceSettings(wire=1)
    remote = EchoServer(where, settings, proxy_choice=ProxyChoice(), trust=Trust(), credentials=Credentials())
    return remote.connect()
