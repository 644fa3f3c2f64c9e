"""TLS records by hand, as no TLS library writes them: for hostile.py and tests. Never for what must be secure.

OpenSSL does the handshake and logs its secrets (ssl.SSLContext.keylog_filename). From them a RecordWriter derives the
keys, and encrypts whatever record it is asked for: key updates without end, empty records, warnings, requests to
renegotiate. Sources: RFC 8446 (TLS 1.3), sections 4.6.3, 5.2 and 7; RFC 5246 and RFC 5288 (TLS 1.2 with AES-GCM).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

#: Content types (RFC 8446, section 5.1).
ALERT, HANDSHAKE, DATA = 21, 22, 23
#: Handshake messages (RFC 8446, section 4): KeyUpdate without and with the wish for an answer; the head of a TLS 1.2
#: ClientHello, with which a client asks to renegotiate.
KEY_UPDATE, KEY_UPDATE_REQUESTED, CLIENT_HELLO = b"\x18\0\0\1\0", b"\x18\0\0\1\1", b"\x01\0\0\0"
#: An alert of the level warning: user_canceled, which TLS 1.3 still has (RFC 8446, section 6.1).
WARNING = b"\x01\x5a"
#: Where the random number of a ServerHello is: behind the headers of the record and the message, and the version.
_RANDOM_AT, _RANDOM_BYTES = 5 + 4 + 2, 32


class Socket(Protocol):
    """What is needed of a connected socket."""

    def recv(self, size: int, /) -> bytes:
        """Receive up to that many bytes."""

    def sendall(self, data: bytes, /) -> None:
        """Send all."""


class RecordWriter:
    """Makes the records of one end of a connection, after its handshake."""

    def __init__(self, secret: bytes, random: bytes | None = None, *, client: bool = True) -> None:
        """TLS 1.3 with AES-GCM if `secret` is a traffic secret; with both ends' random numbers, the client's first,
        TLS 1.2 with AES-128-GCM, and `secret` is the master secret. `client` is whether this end is the client."""
        self._sequence, self._old = 0, random is not None
        if random is None:
            self._secret = secret
            self._take_keys()
            return
        # RFC 5246, section 6.3: the server's random number comes first here. Two keys of 16 bytes, two salts of 4.
        block = _prf(secret, b"key expansion" + random[_RANDOM_BYTES:] + random[:_RANDOM_BYTES], 40)
        other = 0 if client else 1
        self._cipher = AESGCM(block[16 * other :][:16])
        self._salt = block[32 + 4 * other :][:4]
        # Each direction has sent its Finished.
        self._sequence = 1

    def record(self, kind: int, content: bytes, padding: int = 0) -> bytes:
        """Return one encrypted record; `padding` is bytes of zeros behind the content, in TLS 1.3 only."""
        if self._old:
            return self._old_record(kind, content)
        inner = content + bytes([kind]) + bytes(padding)
        head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._sequence).to_bytes(12, "big")
        self._sequence += 1
        return head + self._cipher.encrypt(nonce, inner, head)

    def key_update(self, message: bytes = KEY_UPDATE) -> bytes:
        """Return a KeyUpdate; the next record is under the next key (RFC 8446, section 7.2)."""
        record = self.record(HANDSHAKE, message)
        self._secret = _expand(self._secret, b"traffic upd", len(self._secret))
        self._sequence = 0
        self._take_keys()
        return record

    def _take_keys(self) -> None:
        # AES-256 goes with SHA-384, AES-128 with SHA-256 (RFC 8446, appendix B.4).
        self._cipher = AESGCM(_expand(self._secret, b"key", 32 if len(self._secret) == 48 else 16))
        self._iv = int.from_bytes(_expand(self._secret, b"iv", 12), "big")

    def _old_record(self, kind: int, content: bytes) -> bytes:
        explicit = self._sequence.to_bytes(8, "big")
        head = bytes([kind]) + b"\x03\x03"
        data = explicit + head + len(content).to_bytes(2, "big")
        self._sequence += 1
        sealed = self._cipher.encrypt(self._salt + explicit, content, data)
        return head + (8 + len(sealed)).to_bytes(2, "big") + explicit + sealed


def context(*, old: bool = False, files: tuple[Path, Path] | None = None) -> ssl.SSLContext:
    """Return a context whose connections writer() can take over: the client's, or with key and certificate the
    server's. `old` is TLS 1.2. Each context keeps its secrets in a file of its own."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if files else ssl.PROTOCOL_TLS_CLIENT)
    if files:
        made.load_cert_chain(files[1], files[0])
        # A ticket would take a number of a record that the writer does not know of.
        made.num_tickets = 0
    else:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    # Of TLS 1.2. Those of TLS 1.3 cannot be chosen here.
    made.set_ciphers("ECDHE+AESGCM+AES128")
    made.minimum_version = made.maximum_version = ssl.TLSVersion.TLSv1_2 if old else ssl.TLSVersion.TLSv1_3
    # A file without a name, which is gone with the process.
    made.keylog_filename = f"/proc/self/fd/{os.memfd_create('keys')}"
    return made


def writer(sock: Socket, tls: ssl.SSLContext) -> RecordWriter:
    """Do a handshake over a connected socket; return the writer of the records behind it. Raises OSError."""
    return handshake(sock, tls)[0]


def handshake(sock: Socket, tls: ssl.SSLContext) -> tuple[RecordWriter, Callable[[], bytes]]:
    """As writer(); also return a function that receives and decrypts. The server's end has TLS 1.3 only."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = tls.protocol == ssl.PROTOCOL_TLS_SERVER
    connection = tls.wrap_bio(incoming, outgoing, server_side=server)
    first = b""

    def receive() -> bytes:
        while True:
            try:
                return connection.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(sock.recv(65536))

    while True:
        try:
            connection.do_handshake()
        except ssl.SSLWantReadError:
            sock.sendall(outgoing.read())
            data = sock.recv(65536)
            if not data:
                raise ssl.SSLEOFError("the peer ended TCP within the handshake") from None
            first = first or data
            incoming.write(data)
        else:
            break
    sock.sendall(outgoing.read())
    logged = secrets(Path(str(tls.keylog_filename)))
    if connection.version() == "TLSv1.2":
        number, secret = logged["CLIENT_RANDOM"]
        return RecordWriter(secret, number + first[_RANDOM_AT:][:_RANDOM_BYTES]), receive
    return RecordWriter(logged[f"{'SERVER' if server else 'CLIENT'}_TRAFFIC_SECRET_0"][1]), receive


def secrets(file: Path) -> dict[str, tuple[bytes, bytes]]:
    """The last random number and secret of each label that OpenSSL has logged; empties the file."""
    lines = [line.split() for line in file.read_text().splitlines() if not line.startswith("#")]
    with file.open("w"):
        pass
    return {label: (bytes.fromhex(number), bytes.fromhex(secret)) for label, number, secret in lines}


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446, section 7.1), for no more bytes than the hash has."""
    label = b"tls13 " + label
    info = struct.pack(">HB", size, len(label)) + label + b"\0\x01"
    return hmac.digest(secret, info, "sha384" if len(secret) == 48 else "sha256")[:size]


def _prf(secret: bytes, seed: bytes, size: int) -> bytes:
    """TLS 1.2's PRF with SHA-256 (RFC 5246, section 5)."""
    data, step = b"", seed
    while len(data) < size:
        step = hmac.new(secret, step, hashlib.sha256).digest()
        data += hmac.new(secret, step + seed, hashlib.sha256).digest()
    return data[:size]
