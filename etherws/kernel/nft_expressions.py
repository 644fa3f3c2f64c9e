"""The steps of nf_tables' rules: each function makes one expression, in the form that pyroute2 encodes.

Plain data: nothing here talks to the kernel. A step loads bytes of a frame, looks at them, or decides; the first step
that does not match ends its rule. Read next: nftables.py, which makes tables of rules.

Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from typing import Any

#: Headers that load() reads from: Ethernet, IP, and TCP or UDP (enum nft_payload_bases).
LINK, NETWORK, TRANSPORT = 0, 1, 2
#: Keys of what the kernel knows of a frame (enum nft_meta_keys), operators of compare() (enum nft_cmp_ops), and
#: verdicts (enum nft_verdicts, and NF_DROP and NF_ACCEPT of include/uapi/linux/netfilter.h).
_PROTOCOL, _L4PROTO = 1, 16
EQUAL, UNEQUAL, MORE_THAN, AT_LEAST = 0, 1, 4, 5
DROP, ACCEPT, JUMP, RETURN = 0, 1, -3, -5

#: The limit matches what is above it, not what is below (NFT_LIMIT_F_INV).
_LIMIT_INVERT = 1

#: What the values of a set are, for those who read the rules by nft (nftables, include/datatype.h).
IPV4_ADDRESSES, IPV6_ADDRESSES, ETHERNET_ADDRESSES, ETHERTYPES = 7, 8, 9, 10
IP_PROTOCOLS, ICMP_TYPES, ICMPV6_TYPES = 12, 14, 29

#: The register that every expression here uses; it holds 16 bytes.
_REGISTER = 1

Expression = dict[str, Any]


def load(base: int, offset: int, length: int) -> Expression:
    """Load bytes of the LINK, NETWORK or TRANSPORT header. A frame that is too short for them does not match."""
    return _expression("payload", DREG=_REGISTER, BASE=base, OFFSET=offset, LEN=length)


def load_extension(header: int, offset: int, length: int) -> Expression:
    """Load bytes of an IPv6 extension header. A frame without that header does not match."""
    return _expression("exthdr", DREG=_REGISTER, TYPE=header, OFFSET=offset, LEN=length)


def mask(bits: bytes) -> Expression:
    """Keep only these bits of what was loaded."""
    both = {"SREG": _REGISTER, "DREG": _REGISTER}
    return _expression("bitwise", **both, LEN=len(bits), MASK=as_data(bits), XOR=as_data(bytes(len(bits))))


def compare(value: bytes, how: int = EQUAL) -> Expression:
    """Match if what was loaded is EQUAL to `value`, UNEQUAL, MORE_THAN or AT_LEAST it (both in network byte
    order)."""
    return _expression("cmp", SREG=_REGISTER, OP=how, DATA=as_data(value))


def in_set(name: str) -> Expression:
    """Match if what was loaded is in the set."""
    return _expression("lookup", SET=name, SREG=_REGISTER)


def add_to_set(name: str) -> Expression:
    """Match if what was loaded is in the set, or if there is room to add it. Its time in the set starts again."""
    return _expression("dynset", SET_NAME=name, OP=1, SREG_KEY=_REGISTER)


def faster_than(frames: int, burst: int) -> Expression:
    """Match what comes beyond `frames` per second, after `burst` frames at once (net/netfilter/nft_limit.c)."""
    return _expression("limit", RATE=frames, UNIT=1, BURST=burst, TYPE=0, FLAGS=_LIMIT_INVERT)


def count() -> Expression:
    """Count the frame."""
    return _expression("counter", BYTES=0, PACKETS=0)


def verdict(code: int, chain: str | None = None) -> Expression:
    """DROP or ACCEPT the frame, JUMP to a chain, or RETURN from it."""
    where = {} if chain is None else {"CHAIN": chain}
    decision = attributes("NFTA_DATA_", VERDICT=attributes("NFTA_VERDICT_", CODE=code, **where))
    return _expression("immediate", DREG=0, DATA=decision)


def attributes(prefix: str, **values: Any) -> dict[str, Any]:
    """Netlink attributes, as pyroute2 wants them; `prefix` begins the name of each."""
    return {"attrs": [(prefix + name, value) for name, value in values.items()]}


def as_data(value: bytes) -> dict[str, Any]:
    """Bytes to compare with, or an element of a set."""
    return attributes("NFTA_DATA_", VALUE=value)


def _expression(name: str, **values: Any) -> Expression:
    return attributes("NFTA_EXPR_", NAME=name, DATA=attributes(f"NFTA_{name.upper()}_", **values))


#: Load the EtherType, behind one VLAN tag if there is one; and the protocol behind IP's header and IPv6's extension
#: headers.
ETHERTYPE, UPPER = (_expression("meta", DREG=_REGISTER, KEY=key) for key in (_PROTOCOL, _L4PROTO))
