"""Where the workers of gunicorn meet the process that has their ports: a name in the kernel, and two messages.

The name is an abstract UNIX socket (unix(7)): it has no file, is of this network namespace, and is gone with the
process. Any user of the machine can take such a name, or connect to it; so each end asks the kernel who the other one
is. Of a worker's user there may be other programs, too; so the port process also asks who started whom. Read next:
find_port_process.py, the worker's side; port_process.py, the other one.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from etherws import __version__
from etherws.errors import WorkerError
from etherws.settings import DeviceSettings, ServerSettings
from etherws.workers.start_message import settings_of

#: Bytes of a message. The settings have names of files and of networks.
SIZE_MAX = 64 * 1024

#: Settings that the ports do not need: those of a session, which is in the worker.
_OF_SESSIONS = {"wire", "congestion", "padding", "ping_interval", "ping_timeout"}

#: What to try.
RESTART = "restart gunicorn (a reload is not enough)"

#: struct ucred of linux/socket.h: PID, user and group.
_UCRED = struct.Struct("=iII")


def socket_name(device: str) -> str:
    """The name for the interfaces of this pattern, in this network namespace, of this user."""
    namespace = os.stat("/proc/thread-self/ns/net").st_ino
    return f"\0etherws-ports/{namespace}/{os.geteuid()}/{device}"


class Peer(NamedTuple):
    """Who is at the other end: its PID is 0 if it is in a PID namespace that this one does not see."""

    pid: int
    uid: int


def peer_of(sock: socket.socket) -> Peer:
    """Who connected, or who listens (SO_PEERCRED of socket(7)). Raises OSError."""
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(pid, uid)


def parent_of(pid: int) -> int:
    """The process that started this one (proc_pid_stat(5)); 0 if nobody knows."""
    try:
        # The name before it may have spaces and brackets.
        return int(Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return 0


@dataclass(frozen=True)
class Hello:
    """What a worker says first. `masters` are the processes of gunicorn that it belongs to: its parent, and the one
    before that while gunicorn upgrades itself. `listen` is where they listen, as a URI, for who wants to see it."""

    version: str
    masters: tuple[int, ...]
    settings: ServerSettings
    log_level: int
    listen: str = ""

    def encode(self) -> bytes:
        """The message."""
        return json.dumps(asdict(self)).encode()


def read_hello(data: bytes) -> Hello:
    """What a worker said. Raises WorkerError if it is junk, or of a release with other settings."""
    try:
        values = json.loads(data)
        masters = tuple(int(pid) for pid in values["masters"])
        level, listen = int(values["log_level"]), str(values.get("listen", ""))
        return Hello(str(values["version"]), masters, settings_of(values["settings"]), level, listen)
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise WorkerError(
            f"the port process is of etherws {__version__}, and this worker of another version; {RESTART}"
        ) from exc


def answer(refusal: str = "", wait: float = 0.0) -> bytes:
    """What the worker is told: that it is let in, or else why not, and for how many seconds it may ask again."""
    return json.dumps({"refusal": refusal, "wait": wait}).encode()


def read_answer(data: bytes) -> tuple[str, float]:
    """The refusal, empty if there is none, and the seconds. Raises WorkerError."""
    try:
        values = json.loads(data)
        return str(values["refusal"]), float(values["wait"])
    except (ValueError, KeyError, TypeError) as exc:
        raise WorkerError(f"the port process is of another version of etherws; {RESTART}") from exc


def difference(one: ServerSettings, other: ServerSettings) -> str:
    """Which settings of the ports differ, as ``bridge 'br0' and not 'br1'``; empty if none does."""
    names = [each.name for each in fields(DeviceSettings) if each.name not in _OF_SESSIONS]
    return ", ".join(
        f"{name} {getattr(one, name)!r} and not {getattr(other, name)!r}"
        for name in [*names, "resume_timeout"]
        if getattr(one, name) != getattr(other, name)
    )
