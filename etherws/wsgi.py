"""What a WSGI server is given: ``application``, and ``Application`` to make one's own.

`application` is for gunicorn, with its settings from the environment (ETHERWS_SERVER_DEVICE, _BRIDGE and so on);
Application(ServerSettings(...)) is for embedding: docs/embedding.rst. Importing this opens, patches and parses nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache

from etherws.server.application import Application, Environ, StartResponse
from etherws.settings import ServerSettings

__all__ = ["Application", "application", "from_environ"]


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """The application with its settings from the environment, made at the first call or by start()."""
    return from_environ()(environ, start_response)


@cache
def from_environ() -> Application:
    """The one Application of this process that is configured by the environment. Raises SettingsError."""
    return Application(ServerSettings.from_environ(os.environ))
