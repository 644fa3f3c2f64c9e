"""A TAP that was kept for this process: its bundle in the store is a descriptor of the TAP and a state file.

What is in the state is the business of client/kept_port.py and server/port_state.py. Here is what both have in common:
the name in the store, and the refusal of what cannot be used. Each costs a line of the log, and nothing else. Read
next: kernel/store.py, kernel/state_file.py; tap.py: Tap.adopt.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from etherws.errors import DeviceError, EtherwsError, SettingsError, printable
from etherws.kernel.state_file import StateFile, is_state_file
from etherws.kernel.store import Store
from etherws.tunnel.tap import Tap
from etherws.tunnel.tap_driver import Header

log = logging.getLogger(__name__)

#: What the names of bundles begin with; the index of the interface follows.
PREFIX = "port-"

S = TypeVar("S")

#: Bytes of an interface's name, with the zero byte (linux/if.h).
IFNAMSIZ = 16

#: Makes a state of the values in its file, None if there are none. Raises SettingsError, which says what is wrong.
Read = Callable[[dict[str, Any] | None], S]


@dataclass(frozen=True, eq=False)
class KeptTap(Generic[S]):
    """One bundle that can be used. `name` is its name in the store, `state` what is in its file."""

    name: str
    tap: Tap
    file: StateFile
    state: S


def found(store: Store, read: Read[S]) -> Iterator[KeptTap[S]]:
    """The TAPs that the last process has left. The caller owns them, and keeps them again or closes them. What cannot
    be used is closed and dropped here, with a line of the log."""
    devices = set[tuple[str, int]]()
    for name in _names(store):
        # systemd has each descriptor once; who hands over may name one twice.
        descriptors = list(dict.fromkeys(store.take(name)))
        try:
            kept = _opened(name, descriptors, read)
            if (device := (kept.tap.name, kept.tap.index)) in devices:
                kept.tap.release()
                raise DeviceError(f"{kept.tap.name} is there twice")
        except (EtherwsError, OSError) as exc:
            log.warning("%s of the process before cannot be used: %s", printable(name[:64]), exc)
            store.drop(name)
            for descriptor in descriptors:
                os.close(descriptor)
            continue
        devices.add(device)
        # Further queues of the same TAP.
        for descriptor in {*descriptors} - {kept.tap.fileno(), kept.file.fd}:
            os.close(descriptor)
        yield kept


def check(store: Store, read: Read[S]) -> None:
    """Raise an EtherwsError unless what the last process left can be read. Nothing is taken or changed."""
    for name in _names(store):
        _state(store.look(name), read)


def _names(store: Store) -> list[str]:
    return [name for name in store.names() if name.startswith(PREFIX)]


def _opened(name: str, descriptors: list[int], read: Read[S]) -> KeptTap[S]:
    """Raises EtherwsError or OSError; then all descriptors are still open."""
    file, state = _state(descriptors, read)
    values = file.read() or {}
    index, header = values.get("index"), None
    with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
        size, little_endian = map(int, values["header"])
        header = Header(size, little_endian)
    device = next(descriptor for descriptor in descriptors if descriptor != file.fd)
    try:
        tap = Tap.adopt(device, index if isinstance(index, int) else 0, header)
    except DeviceError as exc:
        name_then = printable(str(values.get("name", ""))[:IFNAMSIZ])
        raise DeviceError(f"{exc} (it was {name_then})" if name_then else str(exc)) from exc
    return KeptTap(name, tap, file, state)


def _state(descriptors: list[int], read: Read[S]) -> tuple[StateFile, S]:
    """The state file among the descriptors, and what is in it. Raises SettingsError or OSError."""
    files = [descriptor for descriptor in descriptors if is_state_file(descriptor)]
    if len(files) != 1 or len(descriptors) < 2:
        raise SettingsError("it is not an interface with its state")
    owner = os.fstat(files[0]).st_uid
    # Who starts as root may give that up later.
    if os.geteuid() not in (0, owner) and owner != 0:
        raise SettingsError(f"its state was written by another user, {owner}")
    file = StateFile(files[0])
    return file, read(file.read())
