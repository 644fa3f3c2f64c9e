"""What is kept of a port for the next process: its client, the rules of that, and where its interface belongs.

Pure: from and to plain values, which kept_ports.py writes to the port's state file. Values are checked: another version
may have written them. Keys that this version does not know are ignored, and VERSION is raised only when an older reader
must not use what is written. Read next: kept_ports.py; kernel/state_file.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from etherws.access.policy import Profile
from etherws.access.profile_values import from_values, to_values
from etherws.errors import SettingsError
from etherws.settings import MTU_MAX, MTU_MIN
from etherws.tap_settings import NAME_MAX, check_name, inet_address

#: What a reader must know at least.
VERSION = 1

ROLE = "server"

#: Characters of an identity and of an address: an HTTP header, in which both come, has 16 KiB at most.
TEXT_MAX = 16 << 10

#: The largest index of an interface: a C int.
INDEX_MAX = 2**31 - 1

#: Seconds: more than any clock has.
TIME_MAX = 1e12

#: Times at which other clients took the port over, at most; port.py keeps 3.
CHANGES_MAX = 100


@dataclass(frozen=True)
class PortState:
    """One port's. Times are in seconds of CLOCK_MONOTONIC, which goes on when another process comes."""

    #: Whether it is the server's first port.
    first: bool
    #: The interface's index and name when this was written. Others may have renamed it since.
    index: int
    name: str
    #: The header that a persistent device had before, as tap_driver.Header.
    header: tuple[int, int]
    #: By which name or pattern it was made, the bridge that was named for it, and the MTU.
    device: str
    bridge: str | None = None
    mtu: int | None = None
    #: The index and the name of the bridge in which it belongs.
    member: tuple[int, str] | None = None
    #: Whether a client has it, or it is kept for one; then which one. Else it is the last one.
    in_use: bool = False
    identity: str | None = None
    resume: str | None = None
    address: str = ""
    profile: Profile = field(default_factory=Profile)
    changes: tuple[float, ...] = ()
    since: float = 0.0
    #: Of the first port: the IP addresses that its interface, or its bridge, was given, and the index of that.
    inet: tuple[int, tuple[str, ...]] | None = None

    def to_values(self) -> dict[str, Any]:
        """As JSON can have them."""
        return {
            "version": VERSION,
            "role": ROLE,
            "first": self.first,
            "index": self.index,
            "name": self.name,
            "header": list(self.header),
            "device": self.device,
            "bridge": self.bridge,
            "mtu": self.mtu,
            "member": self.member and list(self.member),
            "in_use": self.in_use,
            "identity": self.identity,
            "resume": self.resume,
            "address": self.address,
            "profile": to_values(self.profile),
            "changes": list(self.changes),
            "since": self.since,
            "inet": self.inet and [self.inet[0], list(self.inet[1])],
        }


def from_state(values: dict[str, Any] | None, now: float) -> PortState:
    """The state that was written. Times after `now` count as now. Raises SettingsError, which says what is wrong."""
    if values is None:
        raise SettingsError("its state is missing or broken")
    if _number(values, "version", 1, INDEX_MAX) > VERSION:
        raise SettingsError("its state is of a newer version of etherws, which this one does not know")
    if values.get("role") != ROLE:
        raise SettingsError("it is not a server's")
    header = values.get("header")
    if not isinstance(header, list) or len(header) != 2:
        raise SettingsError("its state has a header that is not valid")
    return PortState(
        first=_flag(values, "first"),
        index=_number(values, "index", 1, INDEX_MAX),
        name=_text(values, "name") or "",
        header=(_between(header[0], "header", 0, 255), _between(header[1], "header", 0, 255)),
        device=_name(values, "device", pattern=True) or "ethws%d",
        bridge=_name(values, "bridge"),
        mtu=None if values.get("mtu") is None else _number(values, "mtu", MTU_MIN, MTU_MAX),
        member=_member(values.get("member")),
        in_use=_flag(values, "in_use"),
        identity=_text(values, "identity"),
        resume=_text(values, "resume"),
        address=_text(values, "address") or "",
        profile=from_values(values.get("profile", {})),
        changes=_times(values.get("changes", []), now),
        since=_times([values.get("since", 0.0)], now)[0],
        inet=_inet(values.get("inet")),
    )


def _flag(values: dict[str, Any], key: str) -> bool:
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise SettingsError(f"its state has a {key} that is not true or false")
    return value


def _number(values: dict[str, Any], key: str, low: int, high: int) -> int:
    return _between(values.get(key), key, low, high)


def _between(value: Any, key: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise SettingsError(f"its state has a {key} that is out of range")
    # Not a bool, which is an int, too.
    return int(value)


def _text(values: dict[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is not None and not (isinstance(value, str) and len(value) <= TEXT_MAX):
        raise SettingsError(f"its state has a {key} that is no text, or too long")
    return value


def _name(values: dict[str, Any], key: str, *, pattern: bool = False) -> str | None:
    value = _text(values, key)
    if value is not None:
        check_name(key, (value.replace("%d", "0", 1) if pattern else value)[: 4 * NAME_MAX])
    return value


def _member(value: Any) -> tuple[int, str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise SettingsError("its state has a bridge that is not valid")
    return _between(value[0], "bridge", 0, INDEX_MAX), _text({"bridge": value[1]}, "bridge") or ""


def _inet(value: Any) -> tuple[int, tuple[str, ...]] | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], list):
        raise SettingsError("its state has IP addresses that are not valid")
    return _between(value[0], "inet", 0, INDEX_MAX), tuple(str(inet_address("inet", str(each))) for each in value[1])


def _times(value: Any, now: float) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) > CHANGES_MAX:
        raise SettingsError("its state has a list of times that is not valid")
    for one in value:
        # Also false for what is no number (NaN).
        if type(one) not in (int, float) or not abs(one) <= TIME_MAX:
            raise SettingsError("its state has a time that is not valid")
    return tuple(min(float(one), now) for one in value)
