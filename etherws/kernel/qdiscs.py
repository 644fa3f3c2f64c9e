"""What waits in the kernel ahead of one interface, by netlink: a token bucket, fair queues in it, or no queue at all.

As links.py: one message each, no event loop, and nothing waits, since each new port needs it. Which rate a client has,
and when, says port_settings.py. Every function may raise OSError. Read next: interfaces.py, which calls this.

Sources: include/uapi/linux/rtnetlink.h, pkt_sched.h; net/sched/sch_api.c, sch_tbf.c.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

from etherws.kernel import links, netlink
from etherws.kernel.bridge_tables import dump
from etherws.kernel.link_changes import RTM_DELQDISC, RTM_NEWQDISC
from etherws.kernel.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST
from etherws.walks import in_turns

RTM_GETQDISC, TC_H_ROOT = 38, 0xFFFFFFFF

#: struct tcmsg: family, interface, handle, parent, info. Its attributes, and those of a token bucket.
_TCMSG = struct.Struct("=BxxxiIII")
TCA_KIND, TCA_OPTIONS = 1, 2
TCA_TBF_PARMS, TCA_TBF_BURST = 1, 6

#: struct tc_tbf_qopt: for the rate its link layer and its bytes per second (struct tc_ratespec), the same for the peak
#: rate, which is 0; then the bytes that may wait, and times that TCA_TBF_BURST stands for (Linux 3.13).
_TBF = struct.Struct("=xB6xI12xI8x")
TC_LINKLAYER_ETHERNET = 1


class Queue(NamedTuple):
    """What all that leaves by an interface waits in. `rate` is in bytes per second, if it is a token bucket."""

    handle: int
    kind: str
    rate: int | None


def set_none(index: int) -> None:
    """Have the kernel keep no packets for this interface ahead of its driver's own queue."""
    _put(index, "noqueue", 0, TC_H_ROOT)


def set_token_bucket(index: int, handle: int, rate: int, burst: int, limit: int) -> None:
    """Limit what leaves by this interface to `rate` bytes per second. `burst` bytes may leave at once, and `limit`
    bytes, with these, may wait."""
    options = netlink.attribute(TCA_TBF_PARMS, _TBF.pack(TC_LINKLAYER_ETHERNET, rate, limit))
    options += netlink.attribute(TCA_TBF_BURST, struct.pack("=I", burst))
    _put(index, "tbf", handle, TC_H_ROOT, netlink.attribute(TCA_OPTIONS, options))


def set_fair_queues(index: int, handle: int, parent: int) -> None:
    """Have flows wait in queues of their own within the token bucket of this interface."""
    _put(index, "fq_codel", handle, parent)


def remove(index: int, handle: int) -> None:
    """Remove what was set with this handle. An error if it is not there, or is somebody else's."""
    links.send(links.request(RTM_DELQDISC, _TCMSG.pack(0, index, handle, TC_H_ROOT, 0)))


def get(index: int) -> Queue | None:
    """What this interface has; None if it is gone."""
    # The kernel answers a request for one only by telling all who listen.
    for message in in_turns(dump(RTM_GETQDISC, _TCMSG.pack(0, 0, 0, 0, 0))):
        if message.kind != RTM_NEWQDISC:
            continue
        _, number, handle, parent, _ = _TCMSG.unpack_from(message.body)
        if (number, parent) == (index, TC_H_ROOT):
            values = dict(netlink.attributes(message.body[_TCMSG.size :]))
            return Queue(handle, netlink.text(values[TCA_KIND]), _rate(values))
    return None


def _rate(values: Mapping[int, memoryview]) -> int | None:
    if netlink.text(values[TCA_KIND]) != "tbf":
        return None
    return int(_TBF.unpack(dict(netlink.attributes(values[TCA_OPTIONS]))[TCA_TBF_PARMS])[1])


def _put(index: int, kind: str, handle: int, parent: int, options: bytes = b"") -> None:
    body = _TCMSG.pack(0, index, handle, parent, 0) + netlink.attribute(TCA_KIND, kind.encode() + b"\0") + options
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE
    links.send(links.request(RTM_NEWQDISC, body, flags))
