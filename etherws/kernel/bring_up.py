"""Brings an interface up, in its bridge if it has one: all changes in one message to the kernel.

A thousand clients that come at once get a port each, and each message costs as much as what it does. Isolation is not
for here: see interfaces.py, join(). Read next: links.py, which has the messages; tunnel/tap.py, which calls this.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from etherws.errors import DeviceError
from etherws.kernel import interfaces, links
from etherws.kernel.device_errors import device_errors
from etherws.kernel.interfaces import HINTS, JOIN_HINTS


class _Step(NamedTuple):
    """One change: its message, what it does in words, and what to try if the kernel refuses. Without words a refusal
    does not matter."""

    request: bytes
    action: str
    hints: Mapping[int, str] = HINTS


def set_up(
    index: int,
    mtu: int | None = None,
    *,
    autoconfigure: bool = True,
    address: str | None = None,
    bridge: int | None = None,
) -> None:
    """Bring the interface up, and set its MTU to `mtu` bytes and its Ethernet address unless these are None. Before it
    is up it joins the bridge of this index, if there is one, as by interfaces.join().

    Without `autoconfigure` IPv6 gives it no address by itself, and believes no router advertisement there. That and
    `bridge` are for a new interface only, which is down. Raises DeviceError.
    """
    if bridge and address and _at_once(index, mtu, autoconfigure, address, bridge):
        return
    with device_errors(f"bring up {interfaces.name_of(index)}", HINTS):
        link = links.get(index)
        steps = [*_steps(link, mtu, address, bridge, autoconfigure=autoconfigure)]
        errors = links.send_all([step.request for step in steps])
    for step, error in zip(steps, errors, strict=True):
        if step.action and error:
            with device_errors(step.action, step.hints):
                raise error


def is_full(error: DeviceError) -> bool:
    """Whether set_up() has raised this because the bridge has as many ports as it can have."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EXFULL


def _at_once(index: int, mtu: int | None, autoconfigure: bool, address: str, bridge: int) -> bool:
    """Try to do all that a server's port needs with nothing asked before; return whether that is done. If it is not,
    what is left is to be done step by step, which tells what the kernel refuses."""
    requests = [
        links.change_request(index, mtu=mtu, address=interfaces.as_port(address), master=bridge),
        links.change_request(index, up=True),
    ]
    if not autoconfigure:
        interfaces.forbid_router_advertisements(links.name(index))
        requests.insert(0, links.change_request(index, ipv6_address=False))
    with contextlib.suppress(OSError):
        return not any(links.send_all(requests)[-2:])
    return False


def _steps(
    link: links.Link, mtu: int | None, address: str | None, bridge: int | None, *, autoconfigure: bool
) -> Iterator[_Step]:
    index, name = link.number, link.name
    if mtu is not None and link.mtu != mtu:
        yield _Step(links.change_request(index, mtu=mtu), f"set the MTU of {name} to {mtu}")
    # Before it is up: IPv6 makes its link-local address of this one.
    if address is not None and link.address != address:
        yield _Step(links.change_request(index, address=address), f"give {name} the address {address}")
    if not autoconfigure:
        interfaces.forbid_router_advertisements(name)
        # A kernel without IPv6 refuses it, and has nothing to set.
        yield _Step(links.change_request(index, ipv6_address=False), "")
    if bridge is not None and link.master != bridge:
        request = links.change_request(index, master=bridge, address=interfaces.as_port(address or link.address))
        yield _Step(request, f"put {name} into {_name(bridge)}", JOIN_HINTS)
    # Only if it is down: a user without CAP_NET_ADMIN may own a persistent TAP that root has brought up.
    if not link.up:
        yield _Step(links.change_request(index, up=True), f"bring up {name}")


def _name(bridge: int) -> str:
    """The bridge's name now, for the log."""
    try:
        return interfaces.name_of(bridge)
    except DeviceError:
        return f"the bridge of index {bridge}, which is gone"
