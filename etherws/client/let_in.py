"""Whether a server that has sent its 101 lets us in: one that cannot negotiate may refuse us after that.

Only our own ping tells. A server that has let us in answers it; one that refuses us sends a Close in its place, and
that is a failed attempt as any other: the client was never connected. Read next: late_refusal.py, which knows what the
Close means, also when it comes later; attempt.py, the caller.
"""

from __future__ import annotations

import contextlib
import os

import gevent

from etherws.client.late_refusal import late_refusal
from etherws.close_codes import parse_close
from etherws.errors import ConnectionClosed, ProtocolError, printable
from etherws.tunnel.frames import Encoder, Opcode
from etherws.tunnel.stream import Stream

#: Seconds to wait for the server's first bytes. Its check of a password takes a part of a second. Some programs answer
#: no ping: then nobody knows, and the session begins.
LET_IN_TIMEOUT = 2.0

#: Bytes to ask for: what comes first is a pong, a Close or a frame.
_CHUNK = 4096

#: A Close in one frame, as every control frame is (RFC 6455, section 5.5), and the longest payload of one.
_CLOSE, _PAYLOAD_MAX = 0x88, 125


def first_bytes(stream: Stream, early: bytes) -> bytes:
    """What the server sends first after its 101, for the session; `early` came with the 101, and is enough if there is
    some. Empty if nothing came in time, or if the connection has ended.

    Raises NotAdmitted or another ConnectError if it is a refusal.
    """
    if not early:
        # If the connection has ended, the session finds out why.
        with contextlib.suppress(OSError), gevent.Timeout(LET_IN_TIMEOUT, TimeoutError()):
            stream.sendall(Encoder(server=False).control(Opcode.PING, os.urandom(8)))
            early = stream.recv(_CHUNK)
    if early[:1] == bytes([_CLOSE]) and len(early) >= 2 and early[1] <= _PAYLOAD_MAX:
        _check(early[2 : 2 + early[1]])
    return early


def _check(payload: bytes) -> None:
    """Raise the error for a Close that is a refusal. Any other is for the session."""
    try:
        code, reason = parse_close(payload)
    except ProtocolError:
        return
    if refusal := late_refusal("", ConnectionClosed("closed by the server", code, printable(reason))):
        raise refusal
