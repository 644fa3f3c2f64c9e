"""Links and bridges of the kernel, by netlink: up, MTU, who is in which bridge, at what rate, and making one.

The Linux bridge is the switch; nothing here sees a frame. Every function raises DeviceError with what failed, on what,
and what to try. Source: rtnetlink(7), Linux net/bridge/br_if.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from typing import Any

from gevent.lock import BoundedSemaphore
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from etherws.errors import DeviceError

#: include/uapi/linux/if.h
IFF_UP = 1

#: The handle of shape()'s qdisc, by which it is told from anybody else's.
SHAPER = 0xE7E70000

#: include/uapi/linux/pkt_sched.h
TC_H_ROOT = 0xFFFFFFFF

#: Seconds' worth of data that leave in one go, and that wait their turn at most, but for so many frames in any case.
BURST, STANDING, FRAMES = 0.005, 0.05, 10

#: Ethernet's header and two VLAN tags.
FRAMING = 22

#: pyroute2 runs an asyncio loop per call. In a process that gevent has patched that loop yields to other greenlets, and
#: asyncio refuses a second loop in one thread: one call at a time.
_one_at_a_time = BoundedSemaphore(1)

_HINTS = {
    errno.EPERM: "run as root or with CAP_NET_ADMIN",
    errno.EXFULL: "a Linux bridge has 1,023 ports at most; let some clients go, or run a second bridge",
    errno.ELOOP: "it is a bridge itself; only other interfaces go into a bridge",
    errno.EBUSY: "it is in another bridge or bond; take it out of that first",
    errno.EINVAL: "its driver or the kernel does not allow that value",
    errno.ENOENT: "this kernel cannot shape; load its token bucket by 'modprobe sch_tbf'",
    errno.EOPNOTSUPP: "this kernel has no bridge driver; load it by 'modprobe bridge'",
}


def set_up(name: str, mtu: int | None = None) -> int:
    """Bring the interface up, with `mtu` in bytes unless None; return its index."""
    with _netlink(f"bring up {name}") as route:
        link = _get(route, name)
        index = int(link["index"])
        if mtu is not None and link.get("mtu") != mtu:
            with _doing(f"set the MTU of {name} to {mtu}"):
                route.link("set", index=index, mtu=mtu)
        # Left alone when up already: a user without CAP_NET_ADMIN may own a persistent TAP that is.
        if not link["flags"] & IFF_UP:
            route.link("set", index=index, state="up")
        return index


def placed(index: int) -> tuple[str | None, int]:
    """The name of the bridge that the interface is in, or None; and its MTU in bytes."""
    with _netlink(f"find the bridge of interface {index}") as route:
        link = route.link("get", index=index)[0]
        master = link.get("master")
        name = str(route.link("get", index=master)[0].get("ifname")) if master else None
        return name, int(link.get("mtu"))


def name_of(index: int) -> str:
    """What the interface is called now."""
    with _doing(f"find interface {index}"):
        return socket.if_indextoname(index)


def join(index: int, bridge: str) -> None:
    """Put the interface into `bridge`."""
    with _netlink(f"use the bridge {bridge}") as route:
        master = int(_get(route, bridge)["index"])
        link = route.link("get", index=index)[0]
        if link.get("master") != master:
            with _doing(f"put {link.get('ifname')} into {bridge}"):
                # A bridge that was told no address has the least of its ports'. If that changes as clients come and
                # go, whoever talks to this machine loses it for a while.
                route.link("set", index=index, master=master, address="fe" + link.get("address")[2:])


def isolate(index: int, on: bool) -> None:
    """Have the bridge pass nothing between this port and the others that are isolated; or have it pass that again."""
    with _netlink(f"isolate interface {index}") as route:
        name = route.link("get", index=index)[0].get("ifname")
        if _isolation(route, index) not in (None, on):
            route.brport("set", index=index, isolated=int(on))
        # Looked at again: an old kernel passes over what it does not know.
        if on and not _isolation(route, index):
            raise DeviceError(
                f"cannot isolate {name}: it is in no bridge, or the kernel is older than Linux 4.18;"
                " start the server with --bridge"
            )


def shape(index: int, rate: int | None) -> None:
    """Hold what leaves by the interface to `rate` in bits per second; or, by None, undo that. Source: tc-tbf(8)."""
    with _netlink(f"shape what leaves by interface {index}") as route:
        if rate is None:
            # One that is not there, or is somebody else's, or this user's to leave alone.
            with contextlib.suppress(NetlinkError):
                route.tc("del", index=index, handle=SHAPER, parent=TC_H_ROOT)
            return
        bytes_per_second = min(max(rate // 8, 1), 2**32 - 1)
        frame = int(route.link("get", index=index)[0].get("mtu")) + FRAMING
        burst = max(int(bytes_per_second * BURST), 2 * frame)
        limit = burst + max(int(bytes_per_second * STANDING), FRAMES * frame)
        route.tc("replace", "tbf", index, SHAPER, rate=bytes_per_second, burst=burst, limit=limit)
        # With it a ping overtakes a download; without it, it waits for STANDING.
        with contextlib.suppress(NetlinkError):
            route.tc("replace", "fq_codel", index, SHAPER + 0x10000, parent=SHAPER + 1)


def ensure(bridge: str) -> bool:
    """Make `bridge`, up, unless an interface of that name exists; return whether it was made."""
    with _netlink(f"make the bridge {bridge}") as route:
        if route.link_lookup(ifname=bridge):
            return False
        route.link("add", ifname=bridge, kind="bridge")
        link = _get(route, bridge)
        # Told its own address, a bridge keeps it; see join().
        route.link("set", index=int(link["index"]), address=link.get("address"), state="up")
        return True


def remove_if_empty(bridge: str) -> bool:
    """Remove `bridge` unless somebody else's ports are in it; return whether it is gone."""
    with _netlink(f"remove the bridge {bridge}") as route:
        found = route.link_lookup(ifname=bridge)
        if not found:
            return True
        if any(link.get("master") == found[0] for link in route.link("dump")):
            return False
        route.link("del", index=found[0])
        return True


def _isolation(route: IPRoute, index: int) -> bool | None:
    """Whether the port is isolated; None if it is no bridge's port, or the kernel cannot tell."""
    link = route.link("get", index=index)[0]
    on = link.get_nested("IFLA_LINKINFO", "IFLA_INFO_SLAVE_DATA", "IFLA_BRPORT_ISOLATED")
    return None if on is None else bool(on)


def _get(route: IPRoute, name: str) -> dict[str, Any]:
    found = route.link_lookup(ifname=name)
    if not found:
        raise DeviceError(f"there is no interface {name}; make it first")
    link: dict[str, Any] = route.link("get", index=found[0])[0]
    return link


@contextlib.contextmanager
def _netlink(doing: str) -> Iterator[IPRoute]:
    with _one_at_a_time, _doing(doing), IPRoute() as route:
        yield route


@contextlib.contextmanager
def _doing(what: str) -> Iterator[None]:
    """Turn the kernel's answer into a sentence."""
    try:
        yield
    except (NetlinkError, OSError) as exc:
        number = exc.code if isinstance(exc, NetlinkError) else exc.errno or 0
        hint = _HINTS.get(number)
        raise DeviceError(f"cannot {what}: {os.strerror(number)}" + (f"; {hint}" if hint else "")) from exc
