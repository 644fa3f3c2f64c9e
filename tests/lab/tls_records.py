"""Records of TLS 1.3 that no TLS library would send, from one end of a connection: key updates and empty records.

The secret comes from the log that OpenSSL writes (SSLContext.keylog_filename). Sources: RFC 8446, sections 4.6.3, 5.2,
7.1 and 7.2; RFC 5869, section 2.3.
"""

from __future__ import annotations

import hmac
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HANDSHAKE, DATA = 22, 23
#: KeyUpdate, without and with the request to answer.
SILENT, ANSWERED = b"\x18\x00\x00\x01\x00", b"\x18\x00\x00\x01\x01"


class Records:
    """Encrypts as that end, which must have sent nothing after its handshake."""

    def __init__(self, keylog: Path, label: str = "CLIENT_TRAFFIC_SECRET_0") -> None:
        (secret,) = [line.split()[2] for line in keylog.read_text().splitlines() if line.startswith(label)]
        self._secret = bytes.fromhex(secret)
        self._hash = "sha384" if len(self._secret) == 48 else "sha256"
        self._begin()

    def _begin(self) -> None:
        """New keys: the numbers of the records begin at 0."""
        self._cipher = AESGCM(self._expand("key", 32 if self._hash == "sha384" else 16))
        self._iv, self._number = int.from_bytes(self._expand("iv", 12), "big"), 0

    def _expand(self, label: str, size: int) -> bytes:
        name = b"tls13 " + label.encode()
        info = size.to_bytes(2, "big") + bytes([len(name)]) + name + b"\x00" + b"\x01"
        return hmac.digest(self._secret, info, self._hash)[:size]

    def record(self, kind: int, content: bytes) -> bytes:
        """One record."""
        plain = content + bytes([kind])
        header = b"\x17\x03\x03" + (len(plain) + 16).to_bytes(2, "big")
        nonce = (self._iv ^ self._number).to_bytes(12, "big")
        self._number += 1
        return header + self._cipher.encrypt(nonce, plain, header)

    def key_update(self, message: bytes = SILENT) -> bytes:
        """A key update; what follows has the new keys."""
        record = self.record(HANDSHAKE, message)
        self._secret = self._expand("traffic upd", len(self._secret))
        self._begin()
        return record
