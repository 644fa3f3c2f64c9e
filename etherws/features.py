"""What a client and a server tell each other in the opening handshake beside RFC 6455: a list of features.

Pure: reads and writes the header Etherws-Features, and makes the server's proof that it has read the client's. Which
features an end offers or takes is said by client/upgrade.py and server/negotiation.py. docs/wire.rst is the
specification; its syntax is a part of that of dictionaries in RFC 9651 (Structured Field Values for HTTP).
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

from etherws.settings import MTU_MAX, MTU_MIN

#: The header, in the request and in the 101.
HEADER = "Etherws-Features"

#: What the proof is made with beside the key, as RFC 6455, section 1.3, has it. It is random, and nobody else's: no
#: program that knows RFC 6455 only makes this proof.
GUID = "61521530-42C0-4CE2-B1E3-998B43C0C081"

#: Bytes and features of a list. A longer one counts as malformed: some proxies have 4 KiB for all headers together.
LENGTH_MAX, COUNT_MAX = 1024, 32

#: Names of features. Version 2 of the wire; and the interface's MTU in bytes, which is told, and not agreed on.
VERSION_2, MTU = "v2", "mtu"

#: A session that measures the path, and is no tunnel; with the value IDLE, one that is silent most of the time.
CHECK, IDLE = "check", "idle"

#: The parameter of the server's CHECK if it has no port for one more client.
_FULL = ";full"

#: Each end may send padding, and takes it: tunnel/padding.py. It needs version 2.
PADDING = "padding"

#: One of several connections that are one tunnel; see Membership.
LINK = "link"

#: Connections of a link at most. Each is a queue of a TAP at both ends; two cores are busy with fewer.
LINK_MEMBERS_MAX = 16

#: What names a link: 16 random bytes in base64url without padding.
_LINK_ID = re.compile("[A-Za-z0-9_-]{22}")

#: A number of a link's feature: no sign, no zero before it.
_SMALL = re.compile("0|[1-9][0-9]?")

#: The kernel of this end takes UDP super-frames; if both do, each sends them.
USO = "uso"

#: The name beside which the server's list has its proof.
PROOF = "proof"

#: A feature's name, or that of a parameter; and its value: RFC 9651 has integers, tokens, booleans and byte sequences
#: of these characters. Strings are not used.
_NAME = r"[a-z*][a-z0-9_.*-]*"
_ITEM = rf"{_NAME}(?:=[!#-+\--:<-~]+)?"
_FEATURE = re.compile(rf"({_NAME})(?:=([!#-+\--:<-~]+))?((?:; *{_ITEM})*)")

#: A list: names, each with its value and its parameters as they are written; empty if it has none.
Features = Mapping[str, str]


def parse(text: str) -> dict[str, str] | None:
    """The features in a header's value, in their order; None if it is malformed, too long or names one twice."""
    if len(text) > LENGTH_MAX:
        return None
    members = text.split(",")
    if len(members) > COUNT_MAX:
        return None
    features = {}
    for member in members:
        found = _FEATURE.fullmatch(member.strip(" \t"))
        if found is None:
            return None
        value = f"={found[2]}" if found[2] else ""
        features[found[1]] = value + found[3].replace(" ", "")
    return features if len(features) == len(members) else None


def write(features: Features) -> str:
    """The header's value for these features, in the one form that the proof is made of."""
    return ", ".join(name + rest for name, rest in features.items())


def number(features: Features, name: str, least: int, most: int) -> int | None:
    """The value of a feature, if the list has it and it is a number in that range."""
    found = re.fullmatch("=([0-9]{1,15})(?:;.*)?", features.get(name, ""))
    value = int(found[1]) if found else -1
    return value if least <= value <= most else None


def mtu_of(features: Features) -> int | None:
    """The MTU of the interface at the end that sent this list, in bytes; None if it does not say."""
    return number(features, MTU, MTU_MIN, MTU_MAX)


def check_of(features: Features) -> str | None:
    """Which kind of check a list names: CHECK, or IDLE; None if it names none, or one that nobody knows."""
    return {"": CHECK, f"={IDLE}": IDLE}.get(features.get(CHECK, "none").partition(";")[0])


def check_value(kind: str, *, full: bool = False) -> str:
    """The value of the feature for this kind of check. `full` is whether a tunnel of this client would get no port."""
    return ("" if kind == CHECK else f"={kind}") + (_FULL if full else "")


def is_full(features: Features) -> bool:
    """Whether the server says that a tunnel of this client would get no port."""
    return _FULL in features.get(CHECK, "")


class Membership(NamedTuple):
    """Which connection of which link this is: the number `member`, from 0, of `of`. In a request `id` names the link,
    and `new` is whether this connection founds it; an answer has neither, and the `of` that the server gives."""

    member: int
    of: int
    id: str = ""
    new: bool = False


def link_value(membership: Membership) -> str:
    """The value of the feature LINK, in a request or, without an id, in an answer."""
    name = f";id={membership.id}" if membership.id else ""
    return f"={membership.member};of={membership.of}{name}" + (";new" if membership.new else "")


def link_of(features: Features, *, answer: bool = False) -> Membership | None:
    """Which connection of a link a request's list describes; or, with `answer`, a server's list. None if it describes
    none: what is malformed counts as absent. A link needs version 2."""
    number, *parameters = features.get(LINK, "").removeprefix("=").split(";")
    # A parameter without a value is not one with an empty value.
    values = {name: rest if equals else None for name, equals, rest in (each.partition("=") for each in parameters)}
    of = values.get("of") or ""
    wrong = not (_SMALL.fullmatch(number) and _SMALL.fullmatch(of)) or len(values) < len(parameters)
    if wrong or VERSION_2 not in features or not int(number) < int(of) <= LINK_MEMBERS_MAX:
        return None
    if answer:
        return Membership(int(number), int(of))
    name = values.get("id") or ""
    if not _LINK_ID.fullmatch(name) or values.get("new") is not None:
        return None
    return Membership(int(number), int(of), name, "new" in values)


def proof(key: str, features: Features) -> str:
    """The proof for a Sec-WebSocket-Key and the server's list (without the proof), as a value: who echoes the
    request, or answers to a handshake with another key, has another one."""
    digest = hashlib.sha256((key + GUID + write(features)).encode()).digest()
    return f"=:{base64.b64encode(digest).decode()}:"


def answer(key: str, features: Features) -> str:
    """The header's value in a 101: the server's list, and the proof behind it."""
    return write({**features, PROOF: proof(key, features)})


def proved(key: str, text: str) -> dict[str, str] | None:
    """The server's list without the proof; None if it is malformed or the proof is not the one for `key`."""
    features = parse(text) or {}
    given = features.pop(PROOF, "")
    return features if given == proof(key, features) else None


def mtu_warning(name: str, mtu: int, peer: str, theirs: int) -> str:
    """What to log when the interface `name` here has the MTU `mtu`, in bytes, and the one at `peer` has another."""
    return (
        f"the MTUs differ: {mtu} at {name} here, {theirs} at the interface of {peer}. Larger frames can be lost without"
        f" an error; give both the lower one: --mtu {min(mtu, theirs)}"
    )
