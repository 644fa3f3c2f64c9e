"""What the client keeps in the store: its TAP, and the state by which the next process is the same client.

A server knows a client by its resume token, so that is in the state, for each server. So are the settings that the TAP
was made by: what the user has changed since wins. Read next: tunnel/kept_tap.py, tunnel/interface.py, local_end.py.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from etherws import __version__
from etherws.kernel.state_file import StateFile
from etherws.kernel.store import Store
from etherws.settings import DeviceSettings
from etherws.tunnel import kept_tap
from etherws.tunnel.interface import Found
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)

ROLE = "client"


def check(store: Store) -> None:
    """Raise DeviceError unless what the last process left can be read. Nothing is taken or changed."""
    kept_tap.check(store, ROLE)


class KeptPort:
    """The bundle of the client's TAP: what was found, and what is kept."""

    def __init__(self, store: Store, settings: DeviceSettings) -> None:
        """Take what the last process has left."""
        self._store, self._settings = store, settings
        self._name, self._tap, self._file = "", None, None  # type: str, Tap | None, StateFile | None
        #: The token for each server (RemoteServer.target), as the last process had them.
        self.resume: dict[str, str] = {}
        self.found: Found | None = None
        for kept in kept_tap.found(store, ROLE):
            if self._file is not None:
                log.warning("what was kept as %s is not used: a client has one interface", kept.name)
                store.drop(kept.name)
                kept.tap.close()
                kept.file.close()
                continue
            self._name, self._tap, self._file = kept.name, kept.tap, kept.file
            self._read(kept.tap, kept.state)

    def _read(self, tap: Tap, state: dict[str, Any]) -> None:
        resume = state.get("resume")
        if isinstance(resume, dict):
            self.resume = {str(target): str(token) for target, token in resume.items()}
        since = state.get("unconnected")
        tap.unconnected_since = float(since) if isinstance(since, int | float) else None
        mtu, bridge = state.get("mtu"), state.get("bridge")
        self.found = Found(
            tap,
            device=str(state.get("device")),
            bridge=bridge if isinstance(bridge, str) else None,
            mtu=mtu if isinstance(mtu, int) else None,
            accept_ra=bool(state.get("accept_ra")),
        )

    def keep(self, tap: Tap, resume: Mapping[str, str]) -> None:
        """Keep the TAP, which may be another than before, with all that is to be known of it."""
        if self._tap is not tap or self._file is None:
            self._drop()
            self._name, self._tap, self._file = f"{kept_tap.PREFIX}{tap.index}", tap, StateFile()
        settings = self._settings
        self._file.write(
            {
                "version": kept_tap.VERSION,
                "role": ROLE,
                "etherws": __version__,
                "index": tap.index,
                "header": tap.header,
                "unconnected": tap.unconnected_since,
                "resume": dict(resume),
                "device": settings.device,
                "bridge": settings.bridge,
                "mtu": settings.mtu,
                "accept_ra": settings.accept_ra,
            }
        )
        self._store.keep(self._name, tap.fileno(), self._file.fd)

    def close(self) -> None:
        """Keep nothing. Call it before the TAP is closed."""
        self._drop()

    def _drop(self) -> None:
        if self._file is not None:
            self._store.drop(self._name)
            self._file.close()
        self._file = self._tap = None
