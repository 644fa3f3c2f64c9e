"""Both ends of the tunnel as echoes, for test suites that speak WebSocket but no Ethernet.

A tunnel drops TEXT, cuts what it receives into records, and answers nothing. Here the same link, session, codec and
handshakes run between a wire that leaves messages as they are and a device that sends back what it is given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from gevent.event import Event
from gevent.pywsgi import WSGIServer

from etherws.client.attempt import RemoteServer, split_uri
from etherws.client.credentials import Credentials
from etherws.client.proxy_choice import ProxyChoice
from etherws.server import handshake
from etherws.server.http import UPGRADE, Handler
from etherws.settings import DeviceSettings, Trust
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import BINARY, TEXT, Decoder, Encoder
from etherws.tunnel.session import Session
from etherws.tunnel.wire import Batch, Buffer, Version1

#: The longest message of Autobahn's section 9.
LONGEST = 16 * 1024 * 1024


class Wire(Version1):
    """Messages as they are. The first byte, which the codec below adds and takes away, is the opcode."""

    max_message = LONGEST

    def unpack(self, messages: Sequence[Buffer]) -> Sequence[Buffer]:
        return messages


class EchoDecoder(Decoder):
    """Shows TEXT as BINARY, for the link takes nothing else."""

    def received(self, size: int) -> list[tuple[int, Buffer]]:
        return [
            (BINARY, bytes([opcode]) + payload) if opcode in (TEXT, BINARY) else (opcode, payload)
            for opcode, payload in super().received(size)
        ]


class EchoEncoder(Encoder):
    """Sends each message by the opcode in its first byte."""

    def data(self, messages: Sequence[Buffer]) -> list[Buffer]:
        out = super().data([memoryview(message)[1:] for message in messages])
        for at, message in enumerate(messages):
            out[2 * at] = bytes([0x80 | message[0]]) + bytes(out[2 * at])[1:]
        return out


class Device:
    """In the TAP's place: what is written to it goes back to the peer."""

    def __init__(self, link: Connection) -> None:
        self.drops: Counter[str] = Counter()
        self._link = link

    def unlinked(self, patience: float) -> None:
        """It has no carrier to lose."""

    def begin(self, *, offload: bool) -> None:
        """Nothing to prepare."""

    def read_batch(self, batch: Batch) -> NoReturn:
        """Nothing ever comes by itself."""
        Event().wait()
        raise AssertionError

    def write_batch(self, packets: Sequence[Buffer]) -> None:
        """Echo."""
        self._link.send(packets)
        self._link.sent.wait()


def equip(link: Connection, *, server: bool) -> Connection:
    """Give the link the wire and the codec of this module."""
    link.wire = Wire()
    link._encoder = EchoEncoder(server=server)
    link._decoder = EchoDecoder(server=server, max_message=LONGEST)
    return link


def echo(link: Connection) -> None:
    """Run a session until either side ends it."""
    device: Any = Device(link)
    session = Session(device, link, DeviceSettings(ping_interval=0))
    session.close(session.run())


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """The server's side, as a WSGI application."""
    sock, early = environ[UPGRADE](handshake.accept(environ))
    echo(equip(Connection(sock, server=True, wire=Wire(), early=early), server=True))
    return []


def server(port: int = 0) -> WSGIServer:
    """A started server on loopback."""
    running = WSGIServer(("127.0.0.1", port), application, handler_class=Handler, log=None)
    running.start()
    return running


def connect(uri: str) -> Connection:
    """The client's side, connected."""
    where, _, _ = split_uri(uri)
    remote = RemoteServer(
        where, DeviceSettings(wire=1), proxy_choice=ProxyChoice(), trust=Trust(), credentials=Credentials()
    )
    return equip(remote.connect(), server=False)
