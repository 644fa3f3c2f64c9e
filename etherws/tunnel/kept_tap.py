"""A TAP that was kept for this process: its bundle in the store is a descriptor of the TAP and a state file.

What is in the state is the business of client/kept_port.py and server/port_state.py; here is what both have in common,
and the refusal of what cannot be used: each costs a line of the log, and nothing else. Read next: kernel/store.py,
kernel/state_file.py; tap.py: Tap.adopt.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from etherws.errors import DeviceError
from etherws.kernel.state_file import StateFile, is_state_file
from etherws.kernel.store import Store
from etherws.tunnel.tap import Tap
from etherws.tunnel.tap_driver import Header

log = logging.getLogger(__name__)

#: What the names of bundles begin with.
PREFIX = "port-"

#: The version of states that this code reads. It is raised only when an older reader must not use a state.
VERSION = 1


class KeptTap(NamedTuple):
    """One bundle that can be used. `name` is its name in the store, `state` what is in its file."""

    name: str
    tap: Tap
    file: StateFile
    state: dict[str, Any]


def found(store: Store, role: str) -> Iterator[KeptTap]:
    """The TAPs that the last process of this role ("client", "server") has left. The caller owns them, and keeps them
    again or closes them. What cannot be used is closed and dropped here, with a line of the log."""
    devices = set[tuple[str, int]]()
    for name in [name for name in store.names() if name.startswith(PREFIX)]:
        # systemd has each descriptor once; who hands over may name one twice.
        descriptors = list(dict.fromkeys(store.take(name)))
        try:
            kept = _opened(name, descriptors, role)
            if (device := (kept.tap.name, kept.tap.index)) in devices:
                kept.tap.release()
                raise DeviceError(f"{kept.tap.name} was kept twice")
        except DeviceError as exc:
            log.warning("what was kept as %s is not used: %s", name, exc)
            store.drop(name)
            for descriptor in descriptors:
                # Further ones of the same TAP are closed already.
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            continue
        devices.add(device)
        yield kept


def check(store: Store, role: str) -> None:
    """Raise DeviceError unless what the last process left can be read. Nothing is taken or changed."""
    for name in store.names():
        if name.startswith(PREFIX):
            _state(store.look(name), role)


def _opened(name: str, descriptors: list[int], role: str) -> KeptTap:
    """Raises DeviceError; then all descriptors are still open."""
    file, state, devices = _state(descriptors, role)
    index, header = state.get("index"), None
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
        size, little_endian = map(int, state["header"])
        header = Header(size, little_endian)
    tap = Tap.adopt(devices[0], index if isinstance(index, int) else 0, header)
    for other in devices[1:]:
        os.close(other)
    return KeptTap(name, tap, file, state)


def _state(descriptors: list[int], role: str) -> tuple[StateFile, dict[str, Any], list[int]]:
    """The state file among the descriptors, what is in it, and the other descriptors. Raises DeviceError."""
    files = [descriptor for descriptor in descriptors if is_state_file(descriptor)]
    devices = [descriptor for descriptor in descriptors if descriptor not in files]
    if len(files) != 1 or not devices:
        raise DeviceError("it is not a TAP with its state")
    file = StateFile(files[0])
    state = file.read()
    if state is None:
        raise DeviceError("its state cannot be read")
    if not isinstance(version := state.get("version"), int) or version > VERSION:
        raise DeviceError("its state is of a newer version of etherws")
    if state.get("role") != role:
        raise DeviceError(f"it is not a {role}'s")
    return file, state, devices
