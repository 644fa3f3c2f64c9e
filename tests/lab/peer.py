"""A client made of a bare socket, and what it says: upgrade requests and masked frames."""

from __future__ import annotations

import base64
import contextlib
import select
import socket
import ssl
import struct

from tests.lab.hosts import PATIENCE, Host

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


GOOD = {
    "Host": "etherws.example",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


#: What a request has beside GOOD that offers version 2.
VERSION_2 = {"Sec_WebSocket_Protocol": "etherws.v2", "Etherws_Features": "v2"}


def request(first: str = "GET / HTTP/1.1", /, **changes: str | None) -> bytes:
    """An upgrade request that is right but for the changes; None leaves a header out."""
    headers: dict[str, str | None] = {**GOOD, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = [first, *(f"{name}: {value}" for name, value in headers.items() if value is not None)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"


class Peer:
    """A client made of a bare socket, to whom no rule applies."""

    def __init__(
        self, host: Host, address: tuple[str, int] = ("127.0.0.1", 80), *, source: str = "", tls: bool = False
    ) -> None:
        """From the address `source`, if given. With `tls`, whatever the server's certificate is."""
        self._socket = host.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.bind((source, 0))
        self._socket.connect(address)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self._socket = host.keep(context.wrap_socket(self._socket))
        self._left = b""

    def say(self, data: bytes) -> None:
        """Send bytes."""
        self._socket.sendall(data)

    def head(self) -> bytes:
        """The head of the response."""
        while b"\r\n\r\n" not in self._left:
            data = self._socket.recv(65536)
            if not data:
                break
            self._left += data
        head, _, self._left = self._left.partition(b"\r\n\r\n")
        return head

    def upgraded(self) -> Peer:
        """Become a WebSocket."""
        self.say(request())
        assert self.head().startswith(b"HTTP/1.1 101 ")
        return self

    def rest(self) -> bytes:
        """Everything up to the end of TCP, a reset included."""
        with contextlib.suppress(ConnectionError):
            while data := self._socket.recv(65536):
                self._left += data
        return self._left

    def frame(self) -> tuple[int, bytes]:
        """The next frame of the server: first byte and payload."""
        while True:
            data = self._left
            if len(data) >= 2:
                length, start = data[1] & 0x7F, 2
                if length == 126 and len(data) >= 4:
                    length, start = int.from_bytes(data[2:4], "big"), 4
                if length != 126 and len(data) >= start + length:
                    self._left = data[start + length :]
                    return data[0], data[start : start + length]
            more = self._socket.recv(65536)
            assert more, "the server hung up"
            self._left += more

    def alive(self) -> bool:
        """Whether the session answers a ping."""
        with contextlib.suppress(OSError, AssertionError):
            self.say(masked(0x89, b"there?"))
            while (got := self.frame()) != (0x8A, b"there?"):
                if got[0] == 0x88:
                    return False
            return True
        return False

    def reset(self) -> None:
        """Break off: what is left of the connection is a RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()

    def hung_up(self) -> bool:
        """Whether the other side has, so far."""
        readable, _, _ = select.select([self._socket], [], [], 0)
        return bool(readable) and not self._socket.recv(1, socket.MSG_PEEK)

    def end(self) -> bytes:
        """End TCP in order; return what the server still sent. To close a socket with unread bytes would reset it, and
        the kernel's own frames can come at any time."""
        self._socket.shutdown(socket.SHUT_WR)
        rest = self.rest()
        self._socket.close()
        return rest

    def close(self) -> None:
        """Hang up, by the end of TCP or a reset."""
        self._socket.close()


def masked(first: int, payload: bytes, key: bytes = b"\x01\x02\x03\x04") -> bytes:
    """A client's frame."""
    body = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    if len(payload) < 126:
        length = bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        length = b"\xfe" + len(payload).to_bytes(2, "big")
    else:
        length = b"\xff" + len(payload).to_bytes(8, "big")
    return bytes([first]) + length + key + body


def basic(text: str | bytes) -> str:
    """An Authorization header's value."""
    return "Basic " + base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def asked(host: Host, source: str = "", **headers: str | None) -> tuple[bytes, bytes]:
    """What an upgrade request with these headers, from this address, is answered: the status line, and all of it."""
    peer = Peer(host, source=source)
    peer.say(request(**headers))
    head = peer.head()
    if head.startswith(b"HTTP/1.1 101 "):
        peer.say(masked(0x88, b"\x03\xe8"))
    peer.rest()
    return head.split(b"\r\n")[0], head + b"\r\n\r\n" + peer.rest()


class UnixPeer(Peer):
    """A client on a UNIX socket."""

    def __init__(self, host: Host, address: str) -> None:
        self._socket = host.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(address)
        self._left = b""
