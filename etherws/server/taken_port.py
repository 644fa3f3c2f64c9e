"""Which program listens on a TCP port of this machine, as far as /proc tells (proc(5)).

Only root sees the sockets of other users' programs. listen.py uses this for its error.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from etherws.errors import printable

#: TCP_LISTEN of include/net/tcp_states.h, as /proc/net/tcp shows it.
_LISTEN = "0A"


def listening_program(address: str, port: int) -> str:
    """`` by PROGRAM (pid N)`` for the program that keeps others from listening on this address, ``""`` for all
    addresses; empty if /proc does not tell."""
    # An IPv6 address is free if somebody listens on all IPv4 addresses.
    tables = ("tcp6",) if ":" in address else ("tcp", "tcp6")
    sockets = {f"socket:[{inode}]" for table in tables for inode in _listening(table, address, port)}
    for process in Path("/proc").iterdir() if sockets else ():
        if process.name.isdecimal() and _has_one_of(process, sockets):
            try:
                # The name is up to the program.
                name = printable((process / "comm").read_text(errors="replace").rstrip("\n"))
            except OSError:
                return ""
            return f" by {name} (pid {process.name})"
    return ""


def _listening(table: str, address: str, port: int) -> Iterator[str]:
    """The inodes of the sockets in one of the kernel's tables that listen on this port, and on this address or all."""
    try:
        # Of this thread's network namespace: a thread may be in another one than its process.
        lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()
    except OSError:
        return
    for line in lines[1:]:
        # The number, the local address, the remote one, the state; the inode is the tenth.
        fields = line.split()
        where, _, number = fields[1].partition(":")
        if fields[3] == _LISTEN and int(number, 16) == port and _meets(where, address):
            yield fields[9]


def _meets(where: str, address: str) -> bool:
    """Whether an address in the kernel's form is `address`, or one of them stands for all."""
    if not address or not where.strip("0"):
        return True
    packed = ipaddress.ip_address(address.partition("%")[0]).packed
    # Words of 32 bits in the machine's byte order.
    words = (packed[at : at + 4] for at in range(0, len(packed), 4))
    # An IPv4 address is the last word of an IPv6 one in tcp6.
    return where.endswith("".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words))


def _has_one_of(process: Path, sockets: set[str]) -> bool:
    try:
        return any(os.readlink(descriptor) in sockets for descriptor in (process / "fd").iterdir())
    except OSError:
        # It has ended, or is another user's.
        return False
