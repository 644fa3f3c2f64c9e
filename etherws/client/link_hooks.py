"""When a client runs the programs of --up, --down and --change: up once, when connected; down once, at the end.

What is between is a change: the connection is lost, or there again. Another process that takes over goes on where this
one was. Read next: hooks/queue.py; local_end.py.
"""

from __future__ import annotations

from etherws.hooks.facts import CHANGE, CONNECTED, DOWN, LOST, STOPPED, UP, Facts
from etherws.hooks.queue import Hooks
from etherws.settings import ClientSettings


class LinkHooks:
    """Those of one link."""

    def __init__(self, settings: ClientSettings, *, up: bool) -> None:
        """`up` is whether the process before has run that of --up. Raises SettingsError if a program cannot be run."""
        self._settings, self._hooks = settings, Hooks(settings)
        #: Whether that of --up has run, and that of --down is to run.
        self.up = up
        self._peer = ""

    def connected(self, device: str, peer: str) -> None:
        """The link is there, by this interface and to this server."""
        self._peer = peer
        self._add(CHANGE if self.up else UP, CONNECTED, device)
        self.up = True

    def lost(self, device: str) -> None:
        """The link is lost."""
        self._add(CHANGE, LOST, device)

    def stop(self, device: str) -> None:
        """The interface is about to go. Wait until all programs have ended, some seconds at most."""
        if self.up:
            self._add(DOWN, STOPPED, device)
        self.up = False
        self.finish()

    def finish(self) -> None:
        """Wait until all programs that were started have ended, some seconds at most."""
        self._hooks.finish()

    def _add(self, hook: str, reason: str, device: str) -> None:
        settings = self._settings
        facts = Facts("client", device, settings.bridge or "", self._peer, addresses=settings.inet)
        self._hooks.add(hook, reason, facts)
