"""What a WSGI server loads: ``application``, configured by the environment, and ``Application`` for your own settings.

gunicorn serves `application`, whose settings are ETHERWS_SERVER_DEVICE, ETHERWS_SERVER_BRIDGE and so on. To embed a
tunnel, use Application(ServerSettings(...)): docs/embedding.rst. An import opens, patches and parses nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache

from etherws.server.application import Application, Environ, StartResponse
from etherws.settings import ServerSettings

__all__ = ["Application", "application", "from_environ"]


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Serve one request, by the settings in the environment. They are read at the first call, or by start()."""
    return from_environ()(environ, start_response)


@cache
def from_environ() -> Application:
    """The one Application of this process that the environment configures. Raises SettingsError."""
    return Application(ServerSettings.from_environ(os.environ))
