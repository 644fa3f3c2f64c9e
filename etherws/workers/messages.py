"""What the processes of one server say to each other: JSON, and descriptors beside it; read with suspicion.

A worker may be broken, so what it sends is checked for its form before anybody acts on it. Nothing here waits or knows
what a message leads to. Read next: channel.py, which sends them; port_server.py and remote_ports.py, the two ends.

Source: memfd_create(2), fcntl(2), "File Sealing".
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from collections.abc import Mapping
from typing import Any, TypeAlias

from etherws import features
from etherws.access.policy import Profile
from etherws.access.profile_values import from_values
from etherws.errors import (
    DESCRIPTORS_HINT,
    ChannelError,
    ClientGone,
    ConnectionClosed,
    DeviceError,
    DeviceLost,
    EtherwsError,
    NoPort,
    Refused,
    SettingsError,
    printable,
)
from etherws.features import Membership
from etherws.server.port import ClientKey
from etherws.tunnel.tap import Tap
from etherws.workers.datagrams import DATAGRAM_MAX

Message: TypeAlias = dict[str, Any]

#: What both ends must speak. Another number for each change that the other end would not understand.
VERSION = 2

#: Bytes of a message that is longer, and goes in a memfd. The longest is a profile with as many MAC addresses as fit
#: into a policy file of 1 MiB (access/policy.py).
LONG_MAX = 4 << 20

#: Characters of a name: those of an HTTP request's head are fewer (server/http.py).
TEXT_MAX = 16 << 10

#: Characters of a client's address: an IPv6 address with the name of an interface has 55.
ADDRESS_MAX = 100

#: The largest number in a message: larger than any rate in bits per second, and than any index.
NUMBER_MAX = 1 << 53

_ENCODER = json.JSONEncoder(separators=(",", ":"))

#: The datagram of a message that is in a memfd.
LONG = b"long"
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def encode(message: Message) -> tuple[bytes, int | None]:
    """The bytes to send, and the descriptor to send with them if the message is long; the caller closes that.

    Raises ChannelError if it is too long, or if there is no descriptor for it.
    """
    data = _ENCODER.encode(message).encode()
    if len(data) <= DATAGRAM_MAX:
        return data, None
    if len(data) > LONG_MAX:
        raise ChannelError(f"a message of {len(data)} bytes; at most {LONG_MAX} can be sent")
    try:
        fd = os.memfd_create("etherws-message", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as exc:
        raise ChannelError(
            f"a message of {len(data)} bytes cannot be sent: {exc.strerror}; {DESCRIPTORS_HINT}"
        ) from exc
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return LONG, fd


def decode(data: bytes, fds: list[int]) -> Message:
    """The message of these bytes. A long one's descriptor is taken out of `fds`, and closed. Raises ChannelError."""
    if data == LONG:
        if not fds:
            raise ChannelError("a long message has no descriptor")
        data = _long(fds.pop())
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ChannelError("a message is not JSON") from exc
    if not isinstance(message, dict):
        raise ChannelError("a message is no object")
    return message


def _long(fd: int) -> bytes:
    try:
        found = os.fstat(fd)
        # Only a memfd has seals. Sealed, it cannot change while it is read.
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        if not (sealed and stat.S_ISREG(found.st_mode) and found.st_size <= LONG_MAX):
            raise ChannelError("a long message is too long, or may change")
        return os.pread(fd, found.st_size, 0)
    except OSError as exc:
        raise ChannelError("a long message is in no memfd") from exc
    finally:
        os.close(fd)


def text(message: Mapping[str, Any], key: str, most: int = TEXT_MAX) -> str:
    """The text of this key. Raises ChannelError."""
    value = message.get(key)
    if not isinstance(value, str) or len(value) > most:
        raise ChannelError(f"{key!r} is not a text of at most {most} characters")
    return value


def optional_text(message: Mapping[str, Any], key: str) -> str | None:
    """As text(); None if the key is null or missing."""
    return None if message.get(key) is None else text(message, key)


def number(message: Mapping[str, Any], key: str, most: int = NUMBER_MAX) -> int:
    """The whole number of this key, from 0 to `most`. Raises ChannelError."""
    value = message.get(key)
    # Not isinstance(): a bool is an int.
    if type(value) is not int or not 0 <= value <= most:
        raise ChannelError(f"{key!r} is not a number from 0 to {most}")
    return value


def numbers(message: Mapping[str, Any], key: str) -> list[int]:
    """The whole numbers of this key, a hundred at most. Raises ChannelError."""
    value = message.get(key)
    if not isinstance(value, list) or len(value) > 100 or not all(type(each) is int for each in value):
        raise ChannelError(f"{key!r} is no list of numbers")
    return value


def seconds(message: Mapping[str, Any], key: str) -> float:
    """The seconds of this key. Raises ChannelError."""
    value: Any = message.get(key)
    if type(value) not in (int, float) or not 0 <= value <= NUMBER_MAX:
        raise ChannelError(f"{key!r} is not a time")
    return float(value)


def client_values(client: ClientKey) -> Message:
    """What says who the client is. Raises NoPort if client_of() would not take it."""
    values = {
        "identity": client.identity,
        "resume": client.resume,
        "address": client.address,
        "proxy": client.proxy,
    }
    if any(value is not None and len(value) > TEXT_MAX for value in values.values()):
        raise NoPort(f"the client's name or address is longer than {TEXT_MAX} characters")
    if not _is_address(client.address):
        raise NoPort("the client's address is none")
    return values


def client_of(message: Mapping[str, Any]) -> ClientKey:
    """The client of client_values(). Raises ChannelError."""
    address = text(message, "address")
    if not _is_address(address):
        raise ChannelError("'address' is none")
    proxy = text({"proxy": "", **message}, "proxy", ADDRESS_MAX)
    return ClientKey(optional_text(message, "identity"), optional_text(message, "resume"), address, proxy)


def _is_address(address: str) -> bool:
    """Whether it may be one, or empty; what is logged of a client begins with it."""
    return len(address) <= ADDRESS_MAX and address.isprintable()


def membership_values(membership: Membership | None) -> Message:
    """What says which connection of a link one is; nothing without a link."""
    return {} if membership is None else {"link": features.link_value(membership)}


def membership_of(message: Mapping[str, Any], *, answer: bool = False) -> Membership | None:
    """The membership of membership_values(), in an answer without its id. Raises ChannelError."""
    if "link" not in message:
        return None
    found = features.link_of({features.VERSION_2: "", features.LINK: text(message, "link", 100)}, answer=answer)
    if found is None:
        raise ChannelError("'link' is none")
    return found


def profile_of(message: Mapping[str, Any]) -> Profile:
    """The profile of a message, by access/profile_values.py. Raises ChannelError."""
    try:
        return from_values(message.get("profile"))
    except SettingsError as exc:
        raise ChannelError(f"a profile cannot be used: {exc}") from exc


#: Errors that reach the other process as what they are.
_ERRORS: tuple[type[EtherwsError], ...] = (DeviceLost, DeviceError, NoPort, ClientGone, ConnectionClosed, Refused)

#: Headers of a refusal.
HEADERS_MAX = 10


def error_values(error: EtherwsError) -> Message:
    """What tells the other process of an error."""
    kind = next((kind.__name__ for kind in _ERRORS if isinstance(error, kind)), ChannelError.__name__)
    values = {"error": kind, "text": str(error), "code": getattr(error, "code", None)}
    if isinstance(error, ConnectionClosed):
        values["words"] = error.tell
    elif kind == Refused.__name__ and isinstance(error, Refused):
        values |= {"status": error.status, "headers": error.headers, "kind": error.kind}
    return values


def error_of(message: Mapping[str, Any]) -> EtherwsError:
    """The error of error_values()."""
    said = text(message, "text", LONG_MAX)
    kind = text(message, "error")
    if kind == ClientGone.__name__:
        return ClientGone()
    if kind == ConnectionClosed.__name__:
        code = None if message.get("code") is None else number(message, "code")
        return ConnectionClosed(said, code, tell=text({"words": "", **message}, "words"))
    if kind == Refused.__name__:
        return _refused_of(message, said)
    return next((each for each in _ERRORS if each.__name__ == kind), ChannelError)(said)


def _refused_of(message: Mapping[str, Any], said: str) -> Refused:
    headers = message.get("headers")
    if not isinstance(headers, list) or len(headers) > HEADERS_MAX or not all(map(_is_header, headers)):
        raise ChannelError("'headers' are none")
    return Refused(
        text(message, "status"), said, [(name, value) for name, value in headers], kind=text(message, "kind")
    )


def _is_header(pair: Any) -> bool:
    return (
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) and each.isprintable() for each in pair)
    )


def adopted(fds: list[int], index: int) -> Tap:
    """The TAP of these descriptors, as Tap.descriptors() has them; none if they are lost (datagrams.py). Raises
    DeviceError; then they are closed."""
    if not fds:
        lack = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        raise DeviceError(f"a worker cannot use one more interface: {lack.strerror}; {DESCRIPTORS_HINT}") from lack
    try:
        tap = Tap.adopt(fds[0], index, borrowed=True)
    except DeviceError as exc:
        for fd in fds:
            os.close(fd)
        raise DeviceError(printable(str(exc))) from exc
    for fd in fds[1:]:
        tap.hold_flows(fd)
    return tap
