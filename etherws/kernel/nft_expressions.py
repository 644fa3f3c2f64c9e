"""The steps of nf_tables' rules: each function makes one expression, as the bytes that the kernel is sent.

Pure: nothing here talks to the kernel. A step loads bytes of a frame, looks at them, or decides; the first step that
does not match ends its rule. Read next: nftables.py, which makes tables of rules.

Source: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Mapping

from etherws.kernel import netlink
from etherws.kernel.netlink import attribute

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

#: What dynset does with the set, of enum nft_dynset_ops: add the value, or begin its time anew (NFT_DYNSET_OP_UPDATE).
_UPDATE = 1

#: What comes beyond a limit is told by frames, not by bytes (NFT_LIMIT_PKTS); seconds of its unit.
_FRAMES, _SECOND = 0, 1

#: enum nft_list_attributes, nft_expr_attributes, nft_data_attributes, nft_verdict_attributes
LIST_ELEM = 1
_EXPR_NAME, _EXPR_DATA = 1, 2
_DATA_VALUE, _DATA_VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
#: Of enum nft_counter_attributes and nft_set_elem_attributes.
_COUNTER_PACKETS = 2
_ELEM_KEY, _ELEM_EXPIRATION = 1, 5

#: The type of a rule's comment in its user data, which has a type and a length of one byte each before the value
#: (libnftnl, udata.h).
_COMMENT = 0

#: One, encoded.
Expression = bytes

#: What an attribute may be: see attributes().
Value = int | str | bytes


def load(base: int, offset: int, length: int) -> Expression:
    """Load bytes of the LINK, NETWORK or TRANSPORT header. A frame that is too short for them does not match."""
    # NFTA_PAYLOAD_DREG, BASE, OFFSET, LEN
    return _expression("payload", _REGISTER, base, offset, length)


def load_extension(header: int, offset: int, length: int) -> Expression:
    """Load bytes of an IPv6 extension header. A frame without that header does not match."""
    # NFTA_EXTHDR_DREG, TYPE (one byte), OFFSET, LEN
    return _expression("exthdr", _REGISTER, bytes([header]), offset, length)


def mask(bits: bytes) -> Expression:
    """Keep only these bits of what was loaded."""
    # NFTA_BITWISE_SREG, DREG, LEN, MASK, XOR
    return _expression("bitwise", _REGISTER, _REGISTER, len(bits), _data(bits), _data(bytes(len(bits))))


def compare(value: bytes, how: int = EQUAL) -> Expression:
    """Match if what was loaded is EQUAL to `value`, UNEQUAL, MORE_THAN or AT_LEAST it (both in network byte
    order)."""
    # NFTA_CMP_SREG, OP, DATA
    return _expression("cmp", _REGISTER, how, _data(value))


def in_set(name: str) -> Expression:
    """Match if what was loaded is in the set."""
    # NFTA_LOOKUP_SET, SREG
    return _expression("lookup", name, _REGISTER)


def add_to_set(name: str) -> Expression:
    """Match if what was loaded is in the set, or if there is room to add it. Its time in the set starts again."""
    # NFTA_DYNSET_SET_NAME, SET_ID (needless), OP, SREG_KEY
    return _expression("dynset", name, None, _UPDATE, _REGISTER)


def faster_than(frames: int, burst: int) -> Expression:
    """Match what comes beyond `frames` per second, after `burst` frames at once (net/netfilter/nft_limit.c)."""
    # NFTA_LIMIT_RATE, UNIT, BURST, TYPE, FLAGS
    return _expression("limit", wide(frames), wide(_SECOND), burst, _FRAMES, _LIMIT_INVERT)


def count() -> Expression:
    """Count the frame."""
    # NFTA_COUNTER_BYTES, PACKETS
    return _expression("counter", wide(0), wide(0))


def verdict(code: int, chain: str | None = None) -> Expression:
    """DROP or ACCEPT the frame, JUMP to a chain, or RETURN from it."""
    decision: dict[int, Value] = {_VERDICT_CODE: code.to_bytes(4, "big", signed=True)}
    if chain is not None:
        decision[_VERDICT_CHAIN] = chain
    # NFTA_IMMEDIATE_DREG (NFT_REG_VERDICT), DATA
    return _expression("immediate", 0, attribute(_DATA_VERDICT, attributes(decision)))


def attributes(values: Mapping[int, Value]) -> bytes:
    """Attributes of nf_tables, by their types. A number has four bytes in network byte order, and a text ends with a
    zero byte; bytes are as they are."""
    return b"".join([attribute(kind, _encoded(value)) for kind, value in values.items()])


def wide(number: int) -> bytes:
    """A number that has eight bytes."""
    return number.to_bytes(8, "big")


def element(value: bytes, seconds: float | None = None) -> bytes:
    """An element of a set, which stays in it for so many seconds."""
    values: dict[int, Value] = {_ELEM_KEY: _data(value)}
    if seconds is not None:
        values[_ELEM_EXPIRATION] = wide(max(1, int(seconds * 1000)))
    return attribute(LIST_ELEM, attributes(values))


def element_of(data: memoryview) -> tuple[bytes, float]:
    """The value of an element, and for how many seconds more it stays in its set; 0 if it is not told."""
    values = dict(netlink.attributes(data))
    value = bytes(dict(netlink.attributes(values[_ELEM_KEY]))[_DATA_VALUE])
    return value, int.from_bytes(values.get(_ELEM_EXPIRATION, b""), "big") / 1000


def comment(words: str) -> bytes:
    """The user data of a rule with this comment, of 254 bytes at most."""
    raw = words.encode() + b"\0"
    return bytes([_COMMENT, len(raw)]) + raw


def comment_of(user_data: memoryview) -> str:
    """The comment of a rule; empty if it has none. A rule of others may have any user data."""
    if len(user_data) < 2 or user_data[0] != _COMMENT:
        return ""
    return netlink.text(user_data[2 : 2 + user_data[1]])


def counted(expressions: memoryview) -> int:
    """How many frames the counters among a rule's expressions have counted."""
    frames = 0
    for _, one in netlink.attributes(expressions):
        values = dict(netlink.attributes(one))
        if _EXPR_DATA in values and netlink.text(values.get(_EXPR_NAME, memoryview(b""))) == "counter":
            packets = dict(netlink.attributes(values[_EXPR_DATA])).get(_COUNTER_PACKETS, b"")
            frames += int.from_bytes(packets, "big")
    return frames


def _data(value: bytes) -> bytes:
    return attribute(_DATA_VALUE, value)


def _encoded(value: Value) -> bytes:
    if isinstance(value, bytes):
        return value
    return value.to_bytes(4, "big") if isinstance(value, int) else value.encode() + b"\0"


def _expression(name: str, *values: Value | None) -> Expression:
    """`values` are the attributes from the type 1 on, in the order of the header; None leaves one out."""
    data = attributes({kind: value for kind, value in enumerate(values, 1) if value is not None})
    return attribute(LIST_ELEM, attributes({_EXPR_NAME: name, _EXPR_DATA: data}))


#: Load the EtherType, behind one VLAN tag if there is one; and the protocol behind IP's header and IPv6's extension
#: headers. NFTA_META_DREG, KEY.
ETHERTYPE, UPPER = (_expression("meta", _REGISTER, key) for key in (_PROTOCOL, _L4PROTO))
