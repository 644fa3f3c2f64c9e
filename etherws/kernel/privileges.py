"""What this process may do beside any user: capabilities (capabilities(7)), and the user that it runs as.

Here is what the kernel is told, and what it says of itself; when, is in cli/process/run_as.py and hooks/program.py. No
package on PyPI does this that is still looked after. The kernel keeps capabilities for each thread: so first all
threads but the main one are ended that can be. Sources: capset(2), prctl(2), Linux include/uapi/linux/capability.h,
include/uapi/linux/prctl.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
from collections.abc import Iterable
from pathlib import Path

#: include/uapi/linux/capability.h
CAP_DAC_READ_SEARCH, CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN, CAP_NET_RAW = 2, 5, 6, 7, 12, 13
_VERSION_3 = 0x20080522

#: include/uapi/linux/prctl.h
_SET_DUMPABLE, _SET_KEEPCAPS, _CAPBSET_READ, _CAPBSET_DROP = 4, 8, 23, 24
_SET_NO_NEW_PRIVS, _CAP_AMBIENT, _AMBIENT_RAISE, _AMBIENT_CLEAR_ALL = 38, 47, 2, 4

#: More than any kernel has: they are bits of 64.
_CAPABILITIES_MAX = 64

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct; process 0 is this thread."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """struct __user_cap_data_struct: 32 bits of each set. There are two of them."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def held(thread: str = "thread-self") -> frozenset[int]:
    """The capabilities that a thread may use: its permitted set. `thread` is its folder in /proc."""
    return _sets(thread)["Prm"]


def keep_only(capabilities: Iterable[int]) -> frozenset[int]:
    """Give up, in this thread, for good, and for programs that it starts, all capabilities but these; return which of
    them it has. Nobody but root may look into the process from now on, and it leaves no core dump.

    A program that takes its place keeps the same ones. Raises OSError.
    """
    kept = held() & frozenset(capabilities)
    limit(kept)
    # exec() gives root what is in the bounds. Another user keeps only what is ambient, and so inheritable.
    ambient = kept if os.geteuid() else frozenset[int]()
    # A unit's filter of system calls may forbid to change them, where there is nothing to change.
    if _sets() != {"Prm": kept, "Eff": kept, "Inh": ambient, "Amb": ambient}:
        _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
        _capset(kept, ambient)
        for capability in ambient:
            _prctl(_CAP_AMBIENT, _AMBIENT_RAISE, capability)
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _prctl(_SET_DUMPABLE, 0)
    return kept


def pass_on(capabilities: Iterable[int]) -> None:
    """Have the program that is about to take this process's place have these capabilities at most. Raises OSError."""
    try:
        keep_only(capabilities)
    except PermissionError:
        if os.geteuid() == 0:
            raise
        # A unit's filter forbids capset(2). Of another user than root a program has what is ambient, and no more.
        _prctl(_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
        for capability in held() & frozenset(capabilities):
            _prctl(_CAP_AMBIENT, _AMBIENT_RAISE, capability)
        _prctl(_SET_NO_NEW_PRIVS, 1)


def limit(kept: Iterable[int]) -> None:
    """Have no program that this thread starts get other capabilities than these. Raises OSError."""
    for capability in range(_CAPABILITIES_MAX):
        # EINVAL for one that the kernel does not have; EPERM, without CAP_SETPCAP, where a unit has set the bounds.
        if capability not in kept and _libc.prctl(_CAPBSET_READ, capability, 0, 0, 0) == 1:
            with contextlib.suppress(OSError):
                _prctl(_CAPBSET_DROP, capability)


def become(user: int, group: int) -> None:
    """Run all threads as this user and group for good, without further groups. This thread keeps its capabilities.
    Raises OSError."""
    _prctl(_SET_KEEPCAPS, 1)
    permitted = held()
    os.setgroups(())
    os.setresgid(group, group, group)
    os.setresuid(user, user, user)
    # The kernel has cleared the effective ones.
    _capset(permitted, frozenset())
    _prctl(_SET_KEEPCAPS, 0)


def threads_with_more(than: frozenset[int]) -> list[str]:
    """The names of this process's threads that have other capabilities than these as well."""
    found = []
    for task in os.listdir("/proc/self/task"):
        # One may end meanwhile.
        with contextlib.suppress(OSError):
            if held(f"self/task/{task}") - than:
                found.append(Path("/proc/self/task", task, "comm").read_text(errors="replace").strip())
    return found


def names(capabilities: Iterable[int]) -> str:
    """Capabilities for the log."""
    known = {number: name for name, number in globals().items() if name.startswith("CAP_")}
    return ", ".join(known.get(one, f"capability {one}") for one in sorted(capabilities)) or "no capability"


def _sets(thread: str = "thread-self") -> dict[str, frozenset[int]]:
    """The sets of a thread but for its bounds, by their names in /proc (proc_pid_status(5))."""
    text = Path("/proc", thread, "status").read_text(encoding="ascii", errors="replace")
    found = re.findall(r"^Cap(Prm|Eff|Inh|Amb):\s*([0-9a-f]+)$", text, re.MULTILINE)
    return {name: _members(int(bits, 16)) for name, bits in found}


def _members(bits: int) -> frozenset[int]:
    return frozenset(number for number in range(_CAPABILITIES_MAX) if bits >> number & 1)


def _capset(permitted: frozenset[int], inheritable: frozenset[int]) -> None:
    """Have these, all of them in effect."""
    wanted, passed = (sum(1 << number for number in numbers) for numbers in (permitted, inheritable))
    halves = [_Data(wanted >> at & 0xFFFFFFFF, wanted >> at & 0xFFFFFFFF, passed >> at & 0xFFFFFFFF) for at in (0, 32)]
    _checked(_libc.capset(ctypes.byref(_Header(_VERSION_3, 0)), (_Data * 2)(*halves)))


def _prctl(option: int, *arguments: int) -> None:
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(option, *values))


def _checked(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
