"""This machine's names: by them, web pages may call a server that asks for nothing (origins.py says why)."""

from __future__ import annotations

import contextlib
import socket

import gevent
from gevent.socket import getaddrinfo

#: Seconds for the look-up of the full name.
LOOK_UP_TIMEOUT = 2.0


class OwnNames:
    """The short name, and the full one, which is looked up once, when it is needed."""

    def __init__(self) -> None:
        self._full = ""

    def __call__(self) -> tuple[str, str]:
        """Both names. May block this greenlet, for LOOK_UP_TIMEOUT at most."""
        short = socket.gethostname()
        if not self._full:
            self._full = short
            with contextlib.suppress(OSError), gevent.Timeout(LOOK_UP_TIMEOUT, TimeoutError()):
                # As `hostname --fqdn` does.
                self._full = str(getaddrinfo(short, None, flags=socket.AI_CANONNAME)[0][3])
        return short, self._full
