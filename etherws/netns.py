"""Network namespaces without names: held by a descriptor, gone with it, invisible to the rest of the machine.

For the demo and the tests; no part of a tunnel. Needs neither root (a user namespace of its own will do) nor ``ip``.
Sources: unshare(2), setns(2), network_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

from pyroute2 import IPRoute

#: include/uapi/linux/sched.h
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000

# os.unshare() and os.setns() come only with Python 3.12.
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A fresh network namespace, with nothing but a loopback interface that is down."""

    def __init__(self) -> None:
        """Raises PermissionError without CAP_SYS_ADMIN; see enter_user_namespace()."""
        own = _own()
        try:
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
            self._descriptor = _own()
            _check(_libc.setns(own, CLONE_NEWNET), "setns")
        finally:
            os.close(own)

    def fileno(self) -> int:
        """The descriptor, as netlink takes it to move an interface."""
        return self._descriptor

    def enter(self) -> None:
        """Move this thread into the namespace, for good."""
        _check(_libc.setns(self._descriptor, CLONE_NEWNET), "setns")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Move this thread into the namespace and back. Sockets opened inside stay in it."""
        own = _own()
        try:
            self.enter()
            yield
        finally:
            _check(_libc.setns(own, CLONE_NEWNET), "setns")
            os.close(own)

    @contextlib.contextmanager
    def netlink(self) -> Iterator[IPRoute]:
        """A netlink socket of the namespace; this thread is inside meanwhile."""
        with self.inside(), IPRoute() as route:
            yield route

    def configure(self, name: str, address: str = "") -> None:
        """Bring an interface up, and give it an address such as 10.0.0.1/24."""
        with self.netlink() as route:
            index = route.link_lookup(ifname=name)[0]
            route.link("set", index=index, state="up")
            if address:
                host, _, length = address.partition("/")
                route.addr("add", index=index, address=host, prefixlen=int(length))

    def cable(self, name: str, far: Namespace, far_name: str) -> None:
        """Join the namespace to another by a veth pair, down on both ends."""
        with self.netlink() as route:
            route.link("add", ifname=name, kind="veth", peer={"ifname": far_name, "net_ns_fd": far.fileno()})

    def close(self) -> None:
        """Let go of it; the kernel removes it once no process or socket is in it."""
        os.close(self._descriptor)


def enter_user_namespace() -> None:
    """Make this process root in a user namespace of its own. Raises OSError where the kernel forbids it.

    The process must have one thread only. It gets a network namespace too: the one that it was in is not its to return
    to, once it has been in another.
    """
    user, group = os.geteuid(), os.getegid()
    _check(_libc.unshare(CLONE_NEWUSER | CLONE_NEWNET), "unshare")
    # Without CAP_SETGID outside, the group may be mapped only once setgroups(2) is off (user_namespaces(7)).
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _own() -> int:
    """A descriptor of the namespace that this thread is in."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _check(result: int, call: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
