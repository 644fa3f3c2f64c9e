"""Finds, in rtnetlink's messages, the interfaces whose name, place in a bridge or queueing discipline may have changed.

What it is now must be asked: our own changes are reported as well. Pure. Read next: guard.py. Sources: rtnetlink(7),
include/uapi/linux/rtnetlink.h, if_link.h.
"""

from __future__ import annotations

import struct
from enum import Flag, auto

from etherws.kernel import netlink

RTM_NEWLINK, RTM_DELLINK, RTM_NEWQDISC, RTM_DELQDISC = 16, 17, 36, 37

#: include/linux/socket.h
AF_BRIDGE = 7

#: struct ifinfomsg and struct tcmsg have a family, and the index at the same place.
_HEAD = struct.Struct("=B3xi")


class Touched(Flag):
    """What may have changed of an interface."""

    NAME = auto()
    PORT = auto()
    QUEUE = auto()
    #: It is gone: deleted, or in another network namespace.
    PLACE = auto()


EVERYTHING = Touched.NAME | Touched.PORT | Touched.QUEUE | Touched.PLACE


def touched(data: bytes) -> dict[int, Touched]:
    """The indexes of these interfaces, and what of each."""
    found: dict[int, Touched] = {}
    for kind, _, _, body, _ in netlink.messages(data):
        if len(body) < _HEAD.size:
            continue
        family, index = _HEAD.unpack_from(body)
        if kind in (RTM_NEWQDISC, RTM_DELQDISC):
            what = Touched.QUEUE
        elif kind in (RTM_NEWLINK, RTM_DELLINK):
            what = Touched.PORT if family == AF_BRIDGE else Touched.NAME
            if kind == RTM_DELLINK and family != AF_BRIDGE:
                what |= Touched.PLACE
        else:
            continue
        found[index] = found.get(index, what) | what
    return found
