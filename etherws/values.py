"""Values that users write as text, for options and for variables of the environment: numbers, times, MAC addresses.

Pure. An option and its variable have the same notation. Read next: settings.py, which has the values; cli/options.py.
"""

from __future__ import annotations

import re

from etherws.errors import SettingsError

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}

#: How people and programs write an Ethernet address: 02:00:00:00:00:01, 02-00-..., 2:0:0:0:0:1; 0200.0000.0001; and
#: 020000000001.
_PARTS = re.compile(r"([0-9a-f]{1,2})" + r"[:-]([0-9a-f]{1,2})" * 5)
_GROUPS = re.compile(r"([0-9a-f]{4})\.([0-9a-f]{4})\.([0-9a-f]{4})|[0-9a-f]{12}")


def ethernet(text: str) -> str:
    """The Ethernet address of one machine, in its usual form, 02:00:00:00:00:01, from any usual one.

    Raises ValueError, which says what the text is not, and what to write.
    """
    lower = text.strip().lower()
    if found := _PARTS.fullmatch(lower):
        digits = "".join(part.zfill(2) for part in found.groups())
    elif _GROUPS.fullmatch(lower):
        digits = lower.replace(".", "")
    else:
        raise ValueError("is not a MAC address; write 02:00:00:00:00:01")
    # IEEE 802.3, section 3.2.3: the lowest bit of the first byte marks a group address, which no frame is sent from.
    if int(digits[:2], 16) & 1:
        raise ValueError("is the address of a group of machines; the first byte of one machine's is even, such as 02")
    if not int(digits, 16):
        raise ValueError("is the address of no machine; begin with 02")
    return ":".join(digits[at : at + 2] for at in range(0, 12, 2))


def duration(text: str) -> float:
    """The seconds in a text: a number, with or without a unit (20, 20s, 500ms, 5m, 1h). Raises ValueError."""
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|)", text)
    if not found:
        raise ValueError(f"{text!r} is not a duration; write 20s, 500ms, 5m or a number of seconds")
    return float(found[1]) * _UNITS[found[2]]


def integer(name: str, value: str) -> int:
    """A whole number. `name` begins the message of SettingsError."""
    if not re.fullmatch("[0-9]{1,9}", value):
        raise SettingsError(f"{name} {value!r} is not a number; write digits only")
    return int(value)


def seconds(name: str, value: str) -> float:
    """As duration(). `name` begins the message of SettingsError."""
    try:
        return duration(value)
    except ValueError as exc:
        raise SettingsError(f"{name}: {exc}") from exc


def switch(name: str, value: str) -> bool:
    """Yes or no, in the words that click accepts for the options. Raises SettingsError."""
    word = value.strip().lower()
    if word in ("1", "true", "t", "yes", "y", "on"):
        return True
    if word in ("0", "false", "f", "no", "n", "off"):
        return False
    raise SettingsError(f"{name} {value!r} is neither yes nor no; write 1 or 0")


def words(_: str, value: str) -> tuple[str, ...]:
    """Words with blanks between."""
    return tuple(value.split())
