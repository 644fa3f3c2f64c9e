"""A client's profile as plain values, and back: for a state that outlives the process.

Pure. What comes back is checked as a policy's values are: another version may have written it. A key that this version
does not know is left out. Read next: policy.py, policy_values.py; server/port_state.py, which has such a state.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from etherws.access.policy import Profile
from etherws.access.policy_values import KEYS, RATE_MAX, RATE_MIN
from etherws.errors import SettingsError

_DEFAULT = Profile()


def to_values(profile: Profile) -> dict[str, Any]:
    """The values that differ from the default, as JSON can have them."""
    values = {}
    for field in fields(profile):
        value = getattr(profile, field.name)
        if value != getattr(_DEFAULT, field.name):
            values[field.name] = _listed(value) if isinstance(value, frozenset) else value
    return values


def from_values(values: object) -> Profile:
    """The profile of these values. Raises SettingsError if they are none of a profile."""
    if not isinstance(values, dict):
        raise SettingsError("a profile that is no table")
    known = {field.name for field in fields(Profile)}
    return Profile(**{key: _checked(key, value) for key, value in values.items() if key in known})


def _listed(value: frozenset[Any]) -> list[Any]:
    """Numbers of VLANs are numbers; all else is text."""
    return sorted(each if isinstance(each, int) else str(each) for each in value)


def _checked(key: str, value: Any) -> Any:
    # None where it is not the default: what somebody may write as "unlimited".
    if value is None and getattr(_DEFAULT, key) is None:
        return None
    if key in ("rate_up", "rate_down"):
        if type(value) is not int or not RATE_MIN <= value <= RATE_MAX:
            raise SettingsError(f"{key} is out of range")
        return value
    name = key.replace("_", "-")
    if isinstance(value, str) and key in ("addresses", "group_rate"):
        raise SettingsError(f"{key} is a text")
    return KEYS[name](name, value)
