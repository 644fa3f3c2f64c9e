"""Filters on sockets: programs of classic BPF that the kernel runs, so that this process is not woken for nothing.

One filter for each kind of socket that loop_watch.py, own_frames.py and network_monitor.py have. Attaching one replaces
the one before. Sources: socket(7), include/uapi/linux/filter.h, bpf_common.h; netlink(7) for the messages.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable

#: include/uapi/asm-generic/socket.h
SO_ATTACH_FILTER = 26

#: Instructions: load 1, 2 or 4 bytes (network byte order) from an offset; jump if equal, or if greater; return so many
#: bytes.
LOAD_BYTE, LOAD_HALF, LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_GREATER, RETURN = 0x30, 0x28, 0x20, 0x15, 0x25, 0x06

#: include/uapi/linux/filter.h: loads from this offset on ask about the packet, here on which interface it is.
ASK_INTERFACE = 0xFFFFF000 + 8

#: What a filter returns to keep a whole message, or none of it.
WHOLE, NOTHING = 0xFFFFFFFF, 0

#: Offsets in a netlink message: its type, and the address family behind its header; in one about a route, the bits of
#: its destination's prefix (struct rtmsg).
_KIND, _FAMILY, _PREFIX_BITS = 4, 16, 17

Instruction = tuple[int, int, int, int]


def attach(sock: socket.socket, program: Iterable[Instruction]) -> None:
    """Let only what the program keeps come to this socket. Raises OSError.

    An instruction is its code, how many to skip if a comparison is true, how many if it is false, and its value.
    """
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(code, len(code))
    # struct sock_fprog: the number of instructions, and where they are. The kernel copies them.
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("@HP", len(code) // 8, ctypes.addressof(held)))


def netlink_messages(kinds: tuple[int, int], family: int) -> list[Instruction]:
    """Keep netlink messages of these two types and this address family."""
    first, second = map(_as_loaded, kinds)
    return [
        (LOAD_HALF, 0, 0, _KIND),
        (JUMP_IF_EQUAL, 1, 0, first),
        (JUMP_IF_EQUAL, 0, 3, second),
        (LOAD_BYTE, 0, 0, _FAMILY),
        (JUMP_IF_EQUAL, 0, 1, family),
        (RETURN, 0, 0, WHOLE),
        (RETURN, 0, 0, NOTHING),
    ]


def short_routes(kinds: tuple[int, int], bits: int) -> list[Instruction]:
    """Keep all netlink messages, but those of these two types, about routes, only for prefixes of at most so many
    bits."""
    first, second = map(_as_loaded, kinds)
    return [
        (LOAD_HALF, 0, 0, _KIND),
        (JUMP_IF_EQUAL, 1, 0, first),
        (JUMP_IF_EQUAL, 0, 2, second),
        (LOAD_BYTE, 0, 0, _PREFIX_BITS),
        (JUMP_IF_GREATER, 1, 0, bits),
        (RETURN, 0, 0, WHOLE),
        (RETURN, 0, 0, NOTHING),
    ]


def frames_from(address: bytes, size: int, *, but_not_on: int = 0) -> list[Instruction]:
    """Keep `size` bytes of each frame from this Ethernet source, unless it is on the interface of index `but_not_on`.

    For packet sockets of the type SOCK_RAW.
    """
    return [
        (LOAD_WORD, 0, 0, 8),
        (JUMP_IF_EQUAL, 0, 5, int.from_bytes(address[2:], "big")),
        (LOAD_HALF, 0, 0, 6),
        (JUMP_IF_EQUAL, 0, 3, int.from_bytes(address[:2], "big")),
        (LOAD_WORD, 0, 0, ASK_INTERFACE),
        (JUMP_IF_EQUAL, 1, 0, but_not_on),
        (RETURN, 0, 0, size),
        (RETURN, 0, 0, NOTHING),
    ]


def _as_loaded(kind: int) -> int:
    """A message's type as LOAD_HALF has it: it is in the machine's byte order, and loaded in the network's."""
    return int.from_bytes(struct.pack("=H", kind), "big")
