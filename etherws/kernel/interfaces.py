"""Interfaces and bridges of the kernel, by netlink: up, MTU, which bridge, rate, isolation, and making a bridge.

The Linux bridge is the switch; nothing here sees a frame. Every function raises DeviceError, which says what failed, on
what, and what to try. They take an interface by its index: the kernel gives an index to no other interface for a long
time, but a name as soon as it is free. What a port filters is in port_filter.py.
Source: rtnetlink(7), Linux net/bridge/br_if.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from gevent.lock import BoundedSemaphore

from etherws.errors import NET_ADMIN_HINT, DeviceError
from etherws.kernel import links, qdiscs
from etherws.kernel.device_errors import device_errors
from etherws.kernel.pyroute2_parts import IPRoute, NetlinkError

#: Linux, Documentation/networking/ip-sysctl.rst. There is no netlink message for this.
_ACCEPT_RA = "/proc/sys/net/ipv6/conf/{}/accept_ra"

#: The handle of set_rate()'s qdisc. It tells our qdisc from anybody else's.
SHAPER = 0xE7E70000

#: The token bucket lets this many seconds' worth of data leave at once, and at least two frames.
BURST = 0.005

#: At most this many seconds' worth of data wait in the token bucket's queue, or this many frames if that is more.
QUEUE, QUEUE_FRAMES = 0.05, 10

#: Bytes of a frame beside its payload: Ethernet's header and two VLAN tags.
FRAMING = 22

#: The note at a bridge that etherws has made, in ``ip link``: the next process may remove it, if this one cannot.
MADE_HERE = "made by etherws"

#: pyroute2 runs an asyncio loop per call. In a process that gevent has patched, that loop yields to other greenlets,
#: and asyncio refuses a second loop in one thread. So there is one call at a time.
_one_at_a_time = BoundedSemaphore(1)

#: What to try when the kernel refuses, by the number of its error.
HINTS = {
    errno.EPERM: NET_ADMIN_HINT,
    errno.EXFULL: "a Linux bridge has 1,023 ports at most; take some out, or use a second server (docs/gateways.rst)",
    errno.ELOOP: "it is a bridge itself; only other interfaces go into a bridge",
    errno.EBUSY: "it is in another bridge or bond; take it out of that first",
    errno.EINVAL: "its driver or the kernel does not allow that value",
    errno.ENXIO: "it is gone; was it deleted, or moved to another network namespace?",
    errno.ENOENT: "this kernel cannot shape; load its token bucket by 'modprobe sch_tbf'",
    errno.EOPNOTSUPP: "this kernel has no bridge driver; load it by 'modprobe bridge'",
}

#: For join(): here the same number means something else.
JOIN_HINTS = {**HINTS, errno.EOPNOTSUPP: "it is no bridge; name one by --bridge, or a new name to have it made"}


def index_of(name: str) -> int:
    """The index of the interface that has this name now."""
    with device_errors(f"find interface {name}", HINTS):
        if found := links.number(name):
            return found
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def forget_queues(index: int) -> None:
    """Have the kernel queue nothing ahead of a multi-queue TAP, which has queues of its own, and drops what finds one
    full. Else it makes a queue for each that there could be, 256, as soon as the TAP is up: 6.4 MB."""
    # Linux 4.3 and later. Before that it is dear, and works.
    with contextlib.suppress(OSError):
        qdiscs.set_none(index)


def set_mtu(index: int, mtu: int) -> None:
    """Set the interface's MTU, in bytes."""
    with device_errors(f"set the MTU of interface {index} to {mtu}", HINTS):
        links.change(index, mtu=mtu)


def accepts_router_advertisements(name: str) -> bool:
    """Whether a router on the interface's LAN can give this machine addresses and routes. False without IPv6."""
    try:
        return Path(_ACCEPT_RA.format(name)).read_text(encoding="ascii").strip() != "0"
    except OSError:
        return False


def mtu_of(index: int) -> int:
    """The interface's MTU in bytes."""
    with device_errors(f"find the MTU of interface {index}", HINTS):
        return links.mtu(index)


def tap_queues(name: str) -> tuple[int, bool] | None:
    """How many queues of the multi-queue TAP of this name are open, and whether it belongs to a user or a group: if
    not, all users may open one more. None if it is no such TAP."""
    with device_errors(f"find {name}", HINTS):
        return links.tap_queues(name)


def name_of(index: int) -> str:
    """The interface's present name."""
    with device_errors(f"find interface {index}", HINTS):
        return socket.if_indextoname(index)


def join(index: int, bridge: str | int, *, isolated: bool = False, vlans: Callable[[int], None] | None = None) -> None:
    """Put the interface into `bridge`, which is a name or an index. If `isolated`, no frame passes between it and the
    other isolated ports at any moment: it is down until it is isolated, and up then. So it is until `vlans` has put it
    into its VLANs, if there is such a function."""
    with device_errors(f"use the bridge {bridge}", HINTS):
        master = named(bridge) if isinstance(bridge, str) else links.get(bridge)
        link = links.get(index)
        if link.master == master.number:
            return
        with device_errors(f"put {link.name} into {master.name}", JOIN_HINTS):
            if isolated or vlans:
                links.change(index, up=False)
            links.change(index, master=master.number, address=as_port(link.address))
    if isolated or vlans:
        try:
            if isolated:
                isolate(index, True)
            if vlans:
                vlans(index)
        except DeviceError:
            links.change(index, master=0)
            raise
        finally:
            links.change(index, up=True)


def leave_bridge(index: int) -> None:
    """Take the interface out of its bridge. No error if it is in none."""
    with device_errors(f"take {name_of(index)} out of its bridge", HINTS):
        links.change(index, master=0)


def isolate(index: int, on: bool) -> None:
    """`on`: the bridge passes nothing between this port and the other isolated ports. Else it passes that again."""
    with device_errors(f"isolate interface {index}", HINTS):
        link = links.get(index)
        if link.isolated not in (None, on):
            links.isolate(index, on)
        # Read it back: an old kernel ignores an attribute that it does not know.
        if on and not links.get(index).isolated:
            raise DeviceError(
                f"cannot isolate {link.name}: it is in no bridge, or the kernel is older than Linux 4.18;"
                " start the server with --bridge"
            )


def set_rate(index: int, rate: int | None) -> None:
    """Limit what leaves by the interface to `rate` bits per second. None removes our limit. Source: tc-tbf(8)."""
    with device_errors(f"shape what leaves by interface {index}", HINTS):
        if rate is None:
            # No error if there is no limit, if the qdisc is somebody else's, or if this user may not change it.
            with contextlib.suppress(OSError):
                qdiscs.remove(index, SHAPER)
                if links.tap_queues(index):
                    forget_queues(index)
            return
        bytes_per_second = _bytes_per_second(rate)
        frame = links.mtu(index) + FRAMING
        burst = max(int(bytes_per_second * BURST), 2 * frame)
        limit = burst + max(int(bytes_per_second * QUEUE), QUEUE_FRAMES * frame)
        qdiscs.set_token_bucket(index, SHAPER, bytes_per_second, burst, limit)
        # With fq_codel a ping overtakes a download. Without it, a ping waits for up to QUEUE seconds.
        with contextlib.suppress(OSError):
            qdiscs.set_fair_queues(index, SHAPER + 0x10000, SHAPER + 1)


def is_isolated(index: int) -> bool:
    """Whether the interface is an isolated port of a bridge. Raises DeviceError."""
    with device_errors(f"see whether interface {index} is isolated", HINTS):
        return bool(links.get(index).isolated)


def is_in_bridge(index: int) -> bool:
    """Whether the interface is in a bridge or bond. False if it is gone."""
    with device_errors(f"find the bridge of interface {index}", HINTS):
        link = links.find(index)
        return bool(link and link.master)


def bridge_of(index: int) -> str:
    """The name of the bridge or bond that the interface is in; empty if it is in none, or gone."""
    with device_errors(f"find the bridge of interface {index}", HINTS):
        link = links.find(index)
        master = links.find(link.master) if link and link.master else None
        return master.name if master else ""


def has_rate(index: int, rate: int) -> bool:
    """Whether set_rate() with this rate is still in force."""
    with device_errors(f"see what shapes interface {index}", HINTS):
        return qdiscs.get(index) == (SHAPER, "tbf", _bytes_per_second(rate))


def make_bridge(bridge: str, *, autoconfigure: bool = True, address: str | None = None) -> int | None:
    """Make `bridge` and bring it up, unless an interface of that name exists. `autoconfigure` is as in
    bring_up.set_up().
    `address` is the bridge's own; None: the kernel's choice.

    Return the bridge's index if it was made, else None.
    """
    with netlink(f"make the bridge {bridge}") as route:
        if route.link_lookup(ifname=bridge):
            return None
        try:
            route.link("add", ifname=bridge, kind="bridge", **({"address": address} if address else {}))
        except NetlinkError as exc:
            if exc.code != errno.EEXIST:
                raise
            # Another process was faster, such as the next worker of gunicorn.
            return None
        link = named(bridge)
        if not autoconfigure:
            with contextlib.suppress(OSError):
                links.change(link.number, ipv6_address=False)
            forbid_router_advertisements(bridge)
        # A bridge keeps an address that somebody has set, even if it is the same as before; see join().
        links.change(link.number, up=True, address=link.address, alias=MADE_HERE)
        return link.number


def number_if_made_here(bridge: str) -> int | None:
    """The index of the bridge of this name, if etherws has made it, in this process or another; else None."""
    with device_errors(f"use the bridge {bridge}", HINTS):
        found = links.find(bridge)
        return found.number if found and links.alias(found.number) == MADE_HERE else None


def _bytes_per_second(rate: int) -> int:
    return min(max(rate // 8, 1), 2**32 - 1)


def as_port(address: str | None) -> str:
    """The address with which an interface of this one joins a bridge. A bridge without an address of its own takes the
    lowest address of its ports. If that address changed as clients come and go, hosts that talk to this machine would
    lose it for a while. fe is the highest first byte that the address of one machine can have."""
    return f"fe{(address or '')[2:]}"


def forbid_router_advertisements(name: str) -> None:
    """For a new interface, which is down: see bring_up.set_up(). No error where that cannot be set: a kernel without
    IPv6 has nothing to set, and in a container /proc/sys may be read-only; see accepts_router_advertisements()."""
    with contextlib.suppress(OSError):
        Path(_ACCEPT_RA.format(name)).write_text("0", encoding="ascii")


def named(name: str) -> links.Link:
    """The interface of this name. Raises DeviceError, and OSError."""
    try:
        return links.get(name)
    except OSError as exc:
        if exc.errno != errno.ENODEV:
            raise
        raise DeviceError(f"there is no interface {name}; make it first") from None


@contextlib.contextmanager
def netlink(action: str) -> Iterator[IPRoute]:
    """A netlink socket for one `action`, whose errors become DeviceError."""
    with _one_at_a_time, device_errors(action, HINTS), IPRoute() as route:
        yield route
