"""The chains that forwarded packets pass by, of nf_tables and of the old iptables: who drops what no rule accepts.

For the doctor: it looks, and changes nothing. It needs CAP_NET_ADMIN. Every function may raise OSError. The rules that
etherws makes are in nftables.py. Sources: include/uapi/linux/netfilter/nf_tables.h, netfilter_ipv4/ip_tables.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from etherws.kernel import netlink, nfnetlink
from etherws.kernel.nftables import CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, HOOK_HOOKNUM, TABLE

#: Families of nf_tables (include/uapi/linux/netfilter.h) whose forward hook bridged frames can meet.
FAMILIES = {1: "inet", 2: "ip", 7: "bridge", 10: "ip6"}

#: NF_INET_FORWARD, and NF_BR_FORWARD of netfilter_bridge.h.
_FORWARD = 2

#: How many rules a chain has, and jumps to it (enum nft_chain_attributes).
_CHAIN_USE = 6

#: NF_DROP
_DROP = 0

#: IPT_SO_GET_INFO and IPT_SO_GET_ENTRIES; the same numbers for IPv4 and IPv6.
_GET_INFO, _GET_ENTRIES = 64, 65

#: struct ipt_getinfo: name, valid hooks, where 5 chains begin, where 5 policies are, and entries in number and bytes.
_INFO = struct.Struct("=32sI5I5III")

#: struct ipt_get_entries without the entries: name and size, rounded up to the entries' alignment.
_HEAD = struct.Struct("=32sI4x")

#: Bytes of a table that is read: some 50,000 rules.
_SIZE_MAX = 8 << 20

_VERDICT = struct.Struct("=i")

_libc = ctypes.CDLL(None, use_errno=True)


class _Family(NamedTuple):
    """The old iptables for IPv4 or IPv6. `verdict` is where that is in the entry of a policy: behind struct ipt_entry
    or ip6t_entry, and struct xt_entry_target."""

    name: str
    family: int
    level: int
    verdict: int
    tables: str


_LEGACY = (
    _Family("ip", socket.AF_INET, socket.IPPROTO_IP, 112 + 32, "/proc/thread-self/net/ip_tables_names"),
    _Family("ip6", socket.AF_INET6, socket.IPPROTO_IPV6, 168 + 32, "/proc/thread-self/net/ip6_tables_names"),
)


@dataclass(frozen=True)
class Chain:
    """A chain at the forward hook. `family` is "ip", "ip6", "inet" or "bridge"; `rules` is False if it has none."""

    family: str
    table: str
    name: str
    drops: bool
    rules: bool
    legacy: bool = False


def chains() -> list[Chain]:
    """Those of this network namespace."""
    return [*_nf_tables(), *_iptables()]


def _nf_tables() -> list[Chain]:
    found = []
    request = nfnetlink.message(nfnetlink.GETCHAIN, flags=netlink.NLM_F_DUMP, family=nfnetlink.ALL)
    for body in nfnetlink.answers(nfnetlink.GETCHAIN, request):
        # The first byte of struct nfgenmsg.
        family, chain = FAMILIES.get(body[0]), dict(netlink.attributes(body[nfnetlink.NFGENMSG :]))
        hook = dict(netlink.attributes(chain.get(CHAIN_HOOK, b"")))
        if family is None or _number(hook, HOOK_HOOKNUM) != _FORWARD:
            continue
        found.append(
            Chain(
                family,
                netlink.text(chain[TABLE]),
                netlink.text(chain[CHAIN_NAME]),
                _number(chain, CHAIN_POLICY) == _DROP,
                bool(_number(chain, _CHAIN_USE)),
            )
        )
    return found


def _number(values: Mapping[int, memoryview], kind: int) -> int | None:
    return int.from_bytes(values[kind], "big") if kind in values else None


def _iptables() -> list[Chain]:
    """Those of the old iptables. A table that is not in use is not asked for: that would load it."""
    found = []
    for family in _LEGACY:
        with contextlib.suppress(FileNotFoundError):
            if "filter" in Path(family.tables).read_text(encoding="ascii").split():
                found.append(_forward_chain(family))
    return found


def _forward_chain(family: _Family) -> Chain:
    with socket.socket(family.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        info = _INFO.unpack(_asked(sock, family.level, _GET_INFO, _INFO.pack(b"filter", *[0] * 13)))
        begin, policy, size = info[2 + _FORWARD], info[7 + _FORWARD], info[-1]
        if size > _SIZE_MAX:
            raise OSError(errno.EFBIG, f"the filter table has {size} bytes")
        entries = _asked(sock, family.level, _GET_ENTRIES, _HEAD.pack(b"filter", size) + bytes(size))[_HEAD.size :]
    # A verdict of the kernel is written as its negative, less one.
    drops = -_VERDICT.unpack_from(entries, policy + family.verdict)[0] - 1 == _DROP
    return Chain(family.name, "filter", "FORWARD", drops, begin != policy, legacy=True)


def _asked(sock: socket.socket, level: int, option: int, question: bytes) -> bytes:
    """getsockopt(2) with a question in the buffer, which Python's own does not have."""
    buffer, size = ctypes.create_string_buffer(question, len(question)), ctypes.c_uint(len(question))
    if _libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(size)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw
