"""Why a TAP cannot be opened, and what to try. Looks around when that has failed, and changes nothing.

Used by tap.py. Sources: Linux, drivers/net/tun.c (tun_set_iff, tun_chr_show_fdinfo).
"""

from __future__ import annotations

import contextlib
import errno
import os
from itertools import islice
from pathlib import Path

from etherws.errors import DESCRIPTORS_HINT, NET_ADMIN_HINT

DEVICE = "/dev/net/tun"

#: include/uapi/linux/if_tun.h
_IFF_TUN = 0x0001

#: Descriptors of other processes that are looked at, to find who has a TAP. At about 10 us for each, 40 ms: a server
#: looks for as long as that while it has other clients.
_LOOKS_MAX = 4000

_HINTS = {
    errno.ENOENT: "load the kernel's driver by 'modprobe tun'; a container needs --device /dev/net/tun",
    errno.ENODEV: "load the kernel's driver by 'modprobe tun'",
    errno.ENXIO: "load the kernel's driver by 'modprobe tun'",
    errno.EACCES: "run as root, or make /dev/net/tun readable and writable for this user",
    errno.EPERM: NET_ADMIN_HINT,
    errno.EMFILE: DESCRIPTORS_HINT,
    errno.EINVAL: "an interface of another kind has that name; choose another by --device",
}


def explained(number: int, name: str) -> str:
    """The message for this error number (errno(3)) when the TAP `name` was opened."""
    at_device = number in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EACCES)
    hint = _HINTS.get(number, "see the kernel's log")
    if number == errno.EBUSY:
        user = user_of(name)
        hint = f"{user or 'another process'} has it; stop that, or choose another name by --device"
    elif number == errno.EINVAL and _attribute(name, "tun_flags", 16) & _IFF_TUN:
        hint = "it is a TUN, which has no Ethernet; choose another name by --device, or make it by 'mode tap'"
    elif number == errno.EPERM:
        owner = _attribute(name, "owner", 10)
        if owner not in (-1, 0, os.geteuid()):
            hint = f"it belongs to the user with the number {owner}; run as that user, or as root"
        elif not _may_open():
            at_device = True
            hint = "this container may not use it; start it with --device /dev/net/tun --cap-add NET_ADMIN"
    what = f"open {DEVICE}" if at_device else f"create {name}"
    return f"cannot {what}: {os.strerror(number)}; {hint}"


def _attribute(name: str, attribute: str, base: int) -> int:
    """A number that the kernel shows of an interface; 0 if there is none."""
    try:
        return int(Path("/sys/class/net", name, attribute).read_text(encoding="ascii"), base)
    except (OSError, ValueError):
        return 0


def _may_open() -> bool:
    """Whether this process may open the device: the rules for devices of a container may forbid it."""
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return False
    except OSError:
        pass
    return True


def user_of(name: str) -> str:
    """The process that has the TAP open, as "NAME (process 42)"; empty if it cannot be found."""
    wanted = f"\niff:\t{name}\n"
    own = "/proc/thread-self/ns/net"
    for path in islice(Path("/proc").glob("[0-9]*/fd/*"), _LOOKS_MAX):
        # Processes end, and not all may be looked at.
        with contextlib.suppress(OSError, ValueError):
            process = path.parents[1]
            if os.readlink(path) != DEVICE or wanted not in (process / "fdinfo" / path.name).read_text():
                continue
            # Each network namespace may have a TAP of that name.
            if any(os.path.samefile(own, namespace) for namespace in process.glob("task/*/ns/net")):
                command = (process / "comm").read_text(errors="replace").strip()
                return f"{command if command.isprintable() else 'another'} (process {process.name})"
    return ""
