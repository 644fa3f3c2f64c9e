"""systemd's protocol for a service: say what state it is in, keep descriptors with it, take those that it passes.

All of it is in the environment and in datagrams to one socket, so there is no event loop in here, and no function
waits for more than a moment. Without systemd each function does nothing. What the descriptors are for is not known
here. Sources: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3), and
systemd.exec(5) for FDSTORE.
"""

from __future__ import annotations

import array
import os
import re
import socket
import time
from collections.abc import MutableMapping

#: The first descriptor that systemd passes: SD_LISTEN_FDS_START of systemd/sd-daemon.h.
FIRST_DESCRIPTOR = 3

#: Descriptors in one message: SCM_MAX_FD of the kernel's include/net/scm.h. With more, sendmsg() fails.
DESCRIPTORS_MAX = 253

#: Seconds that a message may wait for room in systemd's queue. systemd does not read while it reloads its units; a
#: tunnel should not stop as long.
SEND_TIMEOUT = 1.0

#: Seconds after such a wait in vain in which no message waits: at a stop with 200 clients there are as many messages.
DEAF = 10.0

#: Until when (monotonic clock) no message waits.
_deaf_until = 0.0

#: The name of descriptors without one (sd_listen_fds(3)).
UNNAMED = "unknown"

#: What a name in the store may have: printable ASCII without a colon, 255 characters (sd_notify(3), FDNAME=).
_NAME = re.compile(r"[ -9;-~]{1,255}")

#: Variables by which descriptors are passed. A program that we start must not take them for its own.
_LISTEN_VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")


def notify(*states: str) -> bool:
    """Tell systemd states of this process, such as ``READY=1`` or ``STATUS=3 tunnels``. False if nobody was told."""
    return _send("\n".join(states), ())


def reloading() -> bool:
    """Tell systemd that the files are read again; READY=1 ends it. False if nobody was told."""
    # With Type=notify-reload the time says which of several reloads is over.
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def store_size(environ: MutableMapping[str, str] = os.environ) -> int:
    """How many descriptors systemd keeps for this unit; 0 for none.

    systemd sets FDSTORE from version 254 on. A unit for an older one sets it to its FileDescriptorStoreMax itself.
    """
    return _number(environ, "FDSTORE") if environ.get("NOTIFY_SOCKET") else 0


def keep(name: str, *descriptors: int) -> bool:
    """Have systemd keep the descriptors under a name, in addition to those that it keeps under it already.

    Raises ValueError for a name that systemd would refuse. False if they are not kept: there is no systemd, or it did
    not read in time. systemd says nothing if its store is full. One that it has already is not kept twice.
    """
    _check(name)
    # FDPOLL=0: otherwise systemd waits for errors of each descriptor, and each frame of a TAP costs a look at that.
    told = True
    for start in range(0, len(descriptors), DESCRIPTORS_MAX):
        part = descriptors[start : start + DESCRIPTORS_MAX]
        told = _send(f"FDSTORE=1\nFDPOLL=0\nFDNAME={name}", part) and told
    return told


def drop(name: str) -> bool:
    """Have systemd close all descriptors that it keeps under a name. Raises ValueError and returns as keep() does."""
    _check(name)
    return notify("FDSTOREREMOVE=1", f"FDNAME={name}")


def inherited(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[int]]:
    """The descriptors that systemd passed to this process, by name: kept ones, and sockets of a socket unit.

    They are taken: no program that we start inherits them, the variables are removed, and a second call finds none.
    What is not open, or was passed to another process, is not in the answer.
    """
    passed = {variable: environ.pop(variable, "") for variable in _LISTEN_VARIABLES}
    if passed["LISTEN_PID"] != str(os.getpid()):
        return {}
    count = _number(passed, "LISTEN_FDS")
    names = passed["LISTEN_FDNAMES"].split(":") if passed["LISTEN_FDNAMES"] else []
    found: dict[str, list[int]] = {}
    # The kernel's limit of open files bounds the loop, whatever the variable says.
    for index in range(min(count, os.sysconf("SC_OPEN_MAX"))):
        descriptor = FIRST_DESCRIPTOR + index
        try:
            os.set_inheritable(descriptor, False)
        except OSError:
            continue
        name = names[index] if index < len(names) and names[index] else UNNAMED
        found.setdefault(name, []).append(descriptor)
    return found


def watchdog_interval(environ: MutableMapping[str, str] = os.environ) -> float | None:
    """Seconds between two WATCHDOG=1, half of what systemd waits for one; None if it waits for none of this process."""
    microseconds = _number(environ, "WATCHDOG_USEC")
    if not microseconds or environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return microseconds / 2e6


def _send(text: str, descriptors: tuple[int, ...]) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    # A leading @ means the zero byte of an abstract address (unix(7)).
    target = "\0" + address[1:] if address[0] == "@" else address
    global _deaf_until
    now = time.monotonic()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            # Connected, it can be waited for until there is room at the other end.
            sock.settimeout(0.0 if now < _deaf_until else SEND_TIMEOUT)
            sock.connect(target)
            sock.sendmsg([text.encode()], rights)
    except TimeoutError:
        _deaf_until = time.monotonic() + DEAF
        return False
    except OSError:
        return False
    return True


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name for descriptors: printable ASCII without a colon, 1 to 255 characters")


def _number(environ: MutableMapping[str, str], variable: str) -> int:
    """The number in a variable; 0 if there is none."""
    value = environ.get(variable, "")
    return int(value) if re.fullmatch("[0-9]{1,18}", value) else 0


def instance(role: str) -> str:
    """What the instance of our unit is called, "lan" of etherws-server@lan, by the folder that systemd has made for it
    (systemd.exec(5), RuntimeDirectory=): /run/etherws/server-lan. Empty without such a unit. `role` is "server" or
    "client"."""
    folder = os.path.basename(os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0])
    return folder.removeprefix(f"{role}-") if folder.startswith(f"{role}-") else ""
