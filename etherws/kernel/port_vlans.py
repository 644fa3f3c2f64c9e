"""The VLANs of one port of a bridge that filters VLANs: which one its untagged frames are in, and which tags may pass.

The bridge itself drops all other tags, in both directions. Messages are plain bytes, as in links.py. Between the two
messages that set VLANs a port has none, so nothing passes that should not. Read next: port_settings.py, which says
when; rules.py, which says which. Sources: Linux net/bridge/br_netlink.c, br_vlan.c; include/uapi/linux/if_bridge.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator, Mapping

from etherws.errors import DeviceError
from etherws.kernel import bridge_tables, links, netlink
from etherws.kernel.device_errors import device_errors
from etherws.kernel.interfaces import HINTS
from etherws.kernel.links import AF_BRIDGE, IFLA_AF_SPEC, NLA_F_NESTED, RTM_DELLINK, RTM_SETLINK
from etherws.kernel.rules import PVID, UNTAGGED

#: As in tap_settings.py.
VLAN_MIN, VLAN_MAX = 1, 4094

#: include/uapi/linux/if_bridge.h: an attribute with one VLAN, and flags: the first and the last of several.
IFLA_BRIDGE_VLAN_INFO = 2
RANGE_BEGIN, RANGE_END = 0x8, 0x10

#: include/uapi/linux/rtnetlink.h (Linux 5.6), and the attributes of the answer.
RTM_NEWVLAN, RTM_GETVLAN = 112, 114
BRIDGE_VLANDB_ENTRY, BRIDGE_VLANDB_ENTRY_INFO, BRIDGE_VLANDB_ENTRY_RANGE = 1, 1, 2

#: struct bridge_vlan_info: flags, number; struct br_vlan_msg: family, index.
_VLAN, _QUERY = struct.Struct("=HH"), struct.Struct("=BxxxI")
_SHORT = struct.Struct("=H")

_HINTS = {**HINTS, errno.EOPNOTSUPP: "this kernel has no VLAN filtering (CONFIG_BRIDGE_VLAN_FILTERING)"}

#: Why a bridge is no help, and how it becomes one. For one of 802.1ad a tag of 802.1Q is none, so all of them would
#: pass.
_NO_FILTERING = "does not filter VLANs", "vlan_filtering 1"
_OF_8021AD = "has tags of 802.1ad", "vlan_protocol 802.1Q"

#: VLANs by number, each with PVID, UNTAGGED, both or neither.
Vlans = Mapping[int, int]


def put(index: int, vlans: Vlans) -> None:
    """Have the port of this index be in these VLANs alone. Raises DeviceError; then it is in none, or as before."""
    name = links.name(index) or f"interface {index}"
    with device_errors(f"put {name} into its VLANs", _HINTS):
        bridge = links.get(index).master
        if not bridge:
            raise DeviceError(f"cannot put {name} into its VLANs: it is in no bridge; start etherws with --bridge")
        filtering, _, provider = links.bridge_vlans(bridge)
        if not filtering or provider:
            of = links.name(bridge)
            words, mend = _OF_8021AD if filtering else _NO_FILTERING
            raise DeviceError(f"cannot put {name} into its VLANs: {of} {words}; ip link set {of} type bridge {mend}")
        for error in links.send_all(requests(index, vlans)):
            if error:
                raise error


def reset(index: int) -> None:
    """Have the port be as one that has just joined. No error if it is in no bridge. Raises DeviceError."""
    with device_errors(f"put interface {index} into the usual VLAN", _HINTS):
        link = links.find(index)
        if link is None or not link.master:
            return
        _, usual, _ = links.bridge_vlans(link.master)
        for error in links.send_all(requests(index, {usual: PVID | UNTAGGED} if usual else {})):
            if error and error.errno != errno.EOPNOTSUPP:
                raise error


def missing(index: int, vlans: Vlans) -> bool:
    """Whether the port has other VLANs than these; False if the kernel does not tell (before Linux 5.6)."""
    try:
        return dict(now(index)) != dict(vlans)
    except OSError:
        return False


def now(index: int) -> Iterator[tuple[int, int]]:
    """The VLANs of the port, with their flags. Raises OSError."""
    for message in bridge_tables.dump(RTM_GETVLAN, _QUERY.pack(AF_BRIDGE, index)):
        if message.kind == RTM_NEWVLAN:
            yield from read(message.body, index)


def read(body: bytes | memoryview, index: int) -> Iterator[tuple[int, int]]:
    """The VLANs in a message of this kind, if it is about the port of this index."""
    if len(body) < _QUERY.size or _QUERY.unpack_from(body)[1] != index:
        return
    for kind, value in netlink.attributes(body[_QUERY.size :]):
        entry = dict(netlink.attributes(value)) if kind == BRIDGE_VLANDB_ENTRY else {}
        info, last = entry.get(BRIDGE_VLANDB_ENTRY_INFO, b""), entry.get(BRIDGE_VLANDB_ENTRY_RANGE, b"")
        if len(info) != _VLAN.size:
            continue
        flags, first = _VLAN.unpack(info)
        end = _SHORT.unpack(last)[0] if len(last) == _SHORT.size else first
        for vlan in range(first, min(end, VLAN_MAX) + 1):
            yield vlan, flags & (PVID | UNTAGGED)


def requests(index: int, vlans: Vlans) -> list[bytes]:
    """The messages that take the port out of all VLANs, and put it into these."""
    every = [(RANGE_BEGIN, VLAN_MIN), (RANGE_END, VLAN_MAX)]
    found = [_request(RTM_DELLINK, index, every)]
    if vlans:
        found.append(_request(RTM_SETLINK, index, _entries(vlans)))
    return found


def _entries(vlans: Vlans) -> Iterator[tuple[int, int]]:
    """Each VLAN with its flags. Those that follow one another, with tags, are a range."""
    tagged = sorted(vlan for vlan, flags in vlans.items() if not flags)
    yield from ((flags, vlan) for vlan, flags in vlans.items() if flags)
    at = 0
    while at < len(tagged):
        end = at
        while end + 1 < len(tagged) and tagged[end + 1] == tagged[end] + 1:
            end += 1
        if end == at:
            yield 0, tagged[at]
        else:
            yield RANGE_BEGIN, tagged[at]
            yield RANGE_END, tagged[end]
        at = end + 1


def _request(kind: int, index: int, entries: Iterable[tuple[int, int]]) -> bytes:
    body = b"".join(netlink.attribute(IFLA_BRIDGE_VLAN_INFO, _VLAN.pack(*entry)) for entry in entries)
    head = links.IFINFOMSG.pack(AF_BRIDGE, 0, index, 0, 0)
    return links.request(kind, head + netlink.attribute(IFLA_AF_SPEC | NLA_F_NESTED, body))
