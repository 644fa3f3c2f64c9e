"""What the log says when others have changed where an interface is: what has happened, and how to undo it. Pure.

Read next: membership.py, which finds out; bridges.py, which logs.
"""

from __future__ import annotations

from etherws.errors import DeviceError
from etherws.kernel.membership import Verdict


def warning(verdict: Verdict, interface: str, bridge: str, present: str, *, up: bool) -> str:
    """The warning for this verdict; "" if there is none. The `interface` belongs in `bridge`, or did so until now; it
    is in the bridge `present`, or in none; `up` says whether it is up."""
    back = f"to put it back: ip link set {interface} up master {bridge}"
    condone = (
        f"'bridge-ports-condone-regex ^{interface.rstrip('0123456789')}[0-9]+$' below 'iface {bridge}' in"
        " /etc/network/interfaces"
    )
    if verdict is Verdict.RELOADED:
        return (
            f"{interface} was taken out of {bridge} and set down, as 'ifreload' of ifupdown2 does; it is put back."
            f" To keep it there, write {condone}"
        )
    if verdict is Verdict.RELOADED_AGAIN:
        return (
            f"{interface} is taken out of {bridge} again and again; it stays out now. If that is ifupdown2, write"
            + (f" {condone}; {back}")
        )
    if verdict is Verdict.TAKEN_OUT:
        hint = "" if up else f". If ifupdown2 has done it, write {condone}"
        return f"somebody has taken {interface} out of {bridge}; it stays out; {back}{hint}"
    if verdict is Verdict.MOVED:
        return f"somebody has moved {interface} from {bridge} to {present}; it stays there; {back}"
    return ""


def gone(bridge: str) -> DeviceError:
    """Why no client gets an interface: the bridge of this name was deleted, and may come back."""
    return DeviceError(f"cannot use the bridge {bridge}: it was deleted; make it again, and clients are let in")
