"""What the client keeps in the store: its TAP, and the state by which the next process is the same client.

A server knows a client by its resume token, so that is in the state, for each server. So are the settings that the TAP
was made by: what the user has changed since wins. Read next: tunnel/kept_tap.py, tunnel/interface.py, local_end.py.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Mapping
from time import monotonic
from typing import Any

from etherws import __version__
from etherws.errors import SettingsError
from etherws.kernel import interfaces
from etherws.kernel.state_file import StateFile
from etherws.kernel.store import Store
from etherws.settings import DeviceSettings
from etherws.tunnel import kept_tap
from etherws.tunnel.interface import Interface
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)

ROLE = "client"

#: The version of states that this code reads. It is raised only when an older reader must not use a state.
VERSION = 1

#: Bytes: what the kernel gives a TAP, ETH_DATA_LEN of include/uapi/linux/if_ether.h.
MTU = 1500

#: Seconds: more than any clock has.
TIME_MAX = 1e12


def check(store: Store) -> None:
    """Raise an EtherwsError unless what the last process left can be read. Nothing is taken or changed."""
    kept_tap.check(store, _values)


class KeptPort:
    """The bundle of the client's TAP: what was found, and what is kept."""

    def __init__(self, store: Store, settings: DeviceSettings) -> None:
        """Take what the last process has left, unless other settings demand another TAP."""
        self._store, self._settings = store, settings
        #: The TAP that was found, and the index and name of the bridge in which it was; both may be None.
        self.tap: Tap | None = None
        self.was: tuple[int, str] | None = None
        #: Whether the last process has run the program of --up.
        self.up = False
        #: The IP addresses that the last process has given, and where.
        self.given: tuple[int, tuple[str, ...]] | None = None
        #: The token for each server (RemoteServer.target), as the last process had them.
        self.resume: dict[str, str] = {}
        self._name = ""
        self._file: StateFile | None = None
        # The bridge that the user had named for it.
        self._bridge: str | None = None
        for kept in kept_tap.found(store, _values):
            if why := "a client has one interface" if self.tap else _unfit(kept, settings):
                log.warning("%s of the process before is removed: %s", kept.tap.name, why)
                store.drop(kept.name)
                kept.tap.close()
                kept.file.close()
            else:
                self._name, self.tap, self._file = kept.name, kept.tap, kept.file
                self._read(kept.tap, kept.state)
            # It is the same client also with another TAP.
            if isinstance(resume := kept.state.get("resume"), dict):
                self.resume.update((str(target), str(token)) for target, token in resume.items())

    def _read(self, tap: Tap, state: dict[str, Any]) -> None:
        since, mtu, bridge, was = (state.get(key) for key in ("unconnected", "mtu", "bridge", "was"))
        # In the future it would be of another machine. Also false for what is no number (NaN).
        if isinstance(since, int | float) and abs(since) <= TIME_MAX:
            tap.unconnected_since = min(float(since), monotonic())
        else:
            tap.unconnected_since = None
        self.up = state.get("up") is True
        self._bridge = bridge if isinstance(bridge, str) else None
        if self._bridge == self._settings.bridge:
            with contextlib.suppress(TypeError, ValueError, OverflowError):
                number, name = was  # type: ignore[misc]
                self.was = int(number), str(name)
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            place, addresses = state["inet"]
            self.given = int(place), tuple(map(str, addresses))
        if mtu != self._settings.mtu and (index := tap.locate()):
            interfaces.set_mtu(index, self._settings.mtu or MTU)

    def place(self, interface: Interface) -> None:
        """The TAP that was found is in use again: have it where the user wants it, if that is elsewhere now. Raises
        DeviceError."""
        wanted = self._settings.bridge
        if self.tap is not interface.tap or not (index := self.tap.locate()) or wanted == self._bridge:
            return
        if wanted:
            interfaces.join(index, wanted)
            interface.bridges.add(index, wanted, device=self.tap)
        elif interfaces.bridge_of(index) == self._bridge:
            interfaces.leave_bridge(index)

    def keep(self, interface: Interface, resume: Mapping[str, str], *, up: bool = False) -> None:
        """Keep the TAP, which may be another than before, with all that is to be known of it. `up` is whether the
        program of --up has run."""
        tap, settings = interface.tap, self._settings
        if self.tap is not tap or self._file is None:
            self.drop()
            self._name, self.tap, self._file = f"{kept_tap.PREFIX}{tap.index}", tap, StateFile()
        self._file.write(
            {
                "version": VERSION,
                "role": ROLE,
                "etherws": __version__,
                "index": tap.index,
                "header": tap.header,
                "unconnected": tap.unconnected_since,
                "up": up,
                "inet": interface.inet.given,
                "was": interface.bridges.membership(tap.index),
                "resume": dict(resume),
                "device": settings.device,
                "bridge": settings.bridge,
                "mtu": settings.mtu,
                "accept_ra": settings.accept_ra,
            }
        )
        self._store.keep(self._name, tap.fileno(), self._file.fd)

    def drop(self) -> None:
        """Keep nothing. Call it before the TAP is closed."""
        if self._file is not None:
            self._store.drop(self._name)
            self._file.close()
        self._file = self.tap = None


def _values(values: dict[str, Any] | None) -> dict[str, Any]:
    """The values of a state, if they are a client's. Raises SettingsError."""
    if values is None:
        raise SettingsError("its state is missing or broken")
    if not isinstance(version := values.get("version"), int) or version > VERSION:
        raise SettingsError("its state is of a newer version of etherws")
    if values.get("role") != ROLE:
        raise SettingsError(f"it is not a {ROLE}'s")
    return values


def _unfit(kept: kept_tap.KeptTap[dict[str, Any]], settings: DeviceSettings) -> str:
    """Why other settings demand another TAP; empty if this one will do."""
    pattern = "[0-9]+".join(map(re.escape, settings.device.split("%d", 1)))
    if kept.state.get("device") != settings.device and not re.fullmatch(pattern, kept.tap.name):
        return f"--device is {settings.device} now"
    if bool(kept.state.get("accept_ra")) != settings.accept_ra and not kept.tap.persistent:
        return "--accept-ra has changed"
    return ""
