"""What the process before has left: another version may have written it, or a fault. It is read, or refused."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from etherws.access.policy import Profile
from etherws.errors import SettingsError
from etherws.server.owners import Owners
from etherws.server.port_state import PortState, from_state

RIGHT = PortState(
    first=True, index=7, name="ethws0", header=(12, 1), device="ethws%d", bridge="br0", member=(5, "br0"), in_use=True,
    identity="alice", resume="a" * 22, address="192.0.2.1", profile=Profile(macs=2, isolated=True), changes=(1.0,),
).to_values()  # fmt: skip

anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["br0", "02" * 6]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=4,
)
keys = st.sampled_from([*RIGHT, "x"])
profiles = st.dictionaries(st.sampled_from([*vars(Profile()), "x"]), anything, max_size=4)


@given(changes=st.dictionaries(keys, anything, max_size=4), profile=st.none() | profiles)
def test_a_state_of_a_port_is_read_or_refused(changes: dict[str, Any], profile: dict[str, Any] | None) -> None:
    values = {**RIGHT, **changes, **({"profile": profile} if profile is not None else {})}
    with contextlib.suppress(SettingsError):
        found = from_state(values, 100.0)
        # What was read can be written, and is then the same.
        assert from_state(json.loads(json.dumps(found.to_values())), 100.0) == found


@given(st.lists(st.tuples(st.sampled_from(["identity", "x"]), anything, anything, anything).map(list), max_size=3))
def test_owners_are_read_or_refused(values: list[Any]) -> None:
    owners = Owners()
    with contextlib.suppress(ValueError):
        owners.restore(values, 100.0)
    json.dumps(owners.to_values(100.0, 1 << 20))
