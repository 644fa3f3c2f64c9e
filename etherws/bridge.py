"""Links and bridges of the kernel, by netlink: up, MTU, who is in which bridge, and making one.

The Linux bridge is the switch; nothing here sees a frame. Every function raises DeviceError with what failed, on what,
and what to try. Source: rtnetlink(7), Linux net/bridge/br_if.c.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gevent.lock import BoundedSemaphore
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from etherws.errors import DeviceError

#: include/uapi/linux/if.h
IFF_UP = 1

#: pyroute2 runs an asyncio loop per call. In a process that gevent has patched that loop yields to other greenlets, and
#: asyncio refuses a second loop in one thread: one call at a time.
_one_at_a_time = BoundedSemaphore(1)

_MENDS = {
    errno.EPERM: "run as root or with CAP_NET_ADMIN",
    errno.EXFULL: "a Linux bridge has 1,023 ports at most; let some clients go, or run a second bridge",
    errno.ELOOP: "it is a bridge itself; only other interfaces go into a bridge",
    errno.EBUSY: "it is in another bridge or bond; take it out of that first",
    errno.EINVAL: "its driver or the kernel does not allow that value",
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


def _get(route: IPRoute, name: str) -> dict[str, Any]:
    found = route.link_lookup(ifname=name)
    if not found:
        raise DeviceError(f"there is no interface {name}; make it first")
    link: dict[str, Any] = route.link("get", index=found[0])[0]
    return link


@contextmanager
def _netlink(doing: str) -> Iterator[IPRoute]:
    with _one_at_a_time, _doing(doing), IPRoute() as route:
        yield route


@contextmanager
def _doing(what: str) -> Iterator[None]:
    """Turn the kernel's answer into a sentence."""
    try:
        yield
    except (NetlinkError, OSError) as exc:
        number = exc.code if isinstance(exc, NetlinkError) else exc.errno or 0
        mend = _MENDS.get(number)
        raise DeviceError(f"cannot {what}: {os.strerror(number)}" + (f"; {mend}" if mend else "")) from exc
