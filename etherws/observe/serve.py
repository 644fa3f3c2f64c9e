"""The two doors of the application: the control socket, and --monitor. Opened while there are privileges.

Read next: control_socket.py, access.py, application.py.
"""

from __future__ import annotations

from etherws.observe.events import Events
from etherws.observe.subject import Subject
from etherws.settings import DeviceSettings


class Observation:
    """What is shown of one process."""

    def __init__(self, subject: Subject, events: Events, settings: DeviceSettings, role: str, device: str) -> None:
        """`device` is the first interface's name, after which the control socket is called."""
        self._subject, self._events, self._settings = subject, events, settings
        self._role, self._device = role, device

    def open(self) -> None:
        """Open the sockets: before privileges go. Raises ListenError for --monitor."""

    def start(self) -> None:
        """Answer from now on."""

    def close(self) -> None:
        """End all, and remove the control socket."""
