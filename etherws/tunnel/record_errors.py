"""What is wrong with a record of version 2 of the wire, as the error that ends the connection.

Pure. wire.py finds it; the peer and the log are told. docs/wire.rst is the specification.
"""

from __future__ import annotations

from etherws.close_codes import CloseCode
from etherws.errors import ProtocolError


def wrong(message: str) -> ProtocolError:
    """A protocol error (close code 1002) that says what is wrong."""
    return ProtocolError(CloseCode.PROTOCOL_ERROR, message)


def wrong_length(length: int, left: int, least: int, most: int) -> ProtocolError:
    """The error of a record of `length` bytes, of which its message has `left`; `least` and `most` are allowed."""
    if length > most:
        # What a peer of version 1 would send: the first bytes of a frame are its destination.
        return ProtocolError(
            CloseCode.TOO_BIG,
            f"record of {length} bytes; the limit is {most}: this is not version 2 of the wire; try --wire 1",
        )
    if length < least:
        return wrong(f"record of {length} bytes; the least is {least}")
    return wrong(f"record of {length} bytes runs past the end of its message, which has {left} more")
