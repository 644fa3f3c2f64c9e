"""A small state that outlives its process: JSON in a memfd, which a crash cannot leave half written.

The file has two slots. write() fills the older one, so the newer one is whole at any moment; read() takes the newest
that is whole. Only who has the descriptor can read it: it has no name in any folder. What is in it is the
caller's business. Read next: sealed_memory.py; store.py, which has descriptors outlive the process.

Pure, but for the file itself.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from typing import Any

from etherws.kernel import sealed_memory

#: Bytes of a slot. A state is some hundred bytes, but for a client of a policy that lists thousands of addresses: such
#: a file has up to 1 MiB. What is not written takes no memory.
SLOT_BYTES = 2 << 20

#: The first bytes of a slot. Another layout gets another number at the end.
_MAGIC = b"etherws1"

#: Magic, number of the write, bytes of JSON; the CRC-32 of all that and of the JSON follows.
_HEAD = struct.Struct("<8sQI")
_CRC = struct.Struct("<I")

STATE_MAX = SLOT_BYTES - _HEAD.size - _CRC.size


class StateFile:
    """One memfd; who makes this closes it."""

    def __init__(self, fd: int | None = None) -> None:
        """Make a file or, with `fd`, use one that another process has made. Raises OSError, ValueError if `fd` is no
        such file; it is still open then."""
        if fd is None:
            fd = sealed_memory.make("etherws-state", 2 * SLOT_BYTES)
        elif not is_state_file(fd):
            raise ValueError("not a state file")
        self.fd = fd
        slots = [self._slot(0), self._slot(1)]
        self._written = max(number for number, _ in slots)
        #: The older slot is the next to be filled.
        self._next = 0 if slots[0][0] <= slots[1][0] else 1

    def write(self, state: dict[str, Any]) -> None:
        """Replace the state. Raises ValueError if it is too long for a slot; then the old one stays."""
        data = json.dumps(state, separators=(",", ":")).encode()
        if len(data) > STATE_MAX:
            raise ValueError(f"a state of {len(data)} bytes; at most {STATE_MAX} can be kept")
        head = _HEAD.pack(_MAGIC, self._written + 1, len(data))
        os.pwrite(self.fd, head + _CRC.pack(zlib.crc32(data, zlib.crc32(head))) + data, self._next * SLOT_BYTES)
        self._written += 1
        self._next = 1 - self._next

    def read(self) -> dict[str, Any] | None:
        """The newest whole state; None if there is none."""
        data = max(self._slot(0), self._slot(1), key=lambda slot: slot[0])[1]
        try:
            state = json.loads(data)
        except (ValueError, RecursionError):
            return None
        return state if isinstance(state, dict) else None

    def close(self) -> None:
        """Close the descriptor; others may have the file open."""
        os.close(self.fd)

    def _slot(self, number: int) -> tuple[int, bytes]:
        """The number of the write that filled the slot, and its JSON; (0, b"") if it is not whole."""
        start = number * SLOT_BYTES
        head = os.pread(self.fd, _HEAD.size, start)
        crc = os.pread(self.fd, _CRC.size, start + _HEAD.size)
        magic, written, size = _HEAD.unpack(head)
        if magic != _MAGIC or size > STATE_MAX:
            return 0, b""
        data = os.pread(self.fd, size, start + _HEAD.size + _CRC.size)
        if zlib.crc32(data, zlib.crc32(head)) != _CRC.unpack(crc)[0]:
            return 0, b""
        return written, data


def is_state_file(fd: int) -> bool:
    """Whether the descriptor is a file of this form: a memfd of this size, whose size cannot change."""
    return sealed_memory.is_sealed(fd, 2 * SLOT_BYTES)
