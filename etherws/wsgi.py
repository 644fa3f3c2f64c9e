"""What a WSGI server loads: ``application``, configured by the environment, and ``Application`` for your own settings.

gunicorn serves `application`, whose settings are ETHERWS_SERVER_DEVICE, ETHERWS_SERVER_BRIDGE and so on, and those of
the configuration file that ETHERWS_SERVER_CONFIG names. To embed a tunnel, use Application(ServerSettings(...)):
docs/embedding.rst. An import opens, patches and parses nothing; but when a worker of gunicorn asks for `application`,
its TAP is made, or the worker ends with the reason.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from etherws import garbage
from etherws.config import server_settings
from etherws.errors import EtherwsError, ListenError
from etherws.gunicorn.shared_ports import SharedPorts
from etherws.server import application as server_application
from etherws.server import asgi, gunicorn_workers
from etherws.server.serve import exposure
from etherws.server.takeover import Environ, StartResponse
from etherws.settings import ServerSettings

__all__ = ["Application", "application", "from_environ"]

#: The status of a worker that could not load its application: gunicorn ends, instead of trying again without end
#: (gunicorn.arbiter, Arbiter.APP_LOAD_ERROR).
LOAD_ERROR = 4


class Application(server_application.Application):
    """A WSGI callable, for one server. In a worker of gunicorn it has its ports together with the other workers."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises SettingsError if a file of passwords, tokens or rules cannot be used."""
        self.shared = SharedPorts(settings)
        super().__init__(settings, make_ports=self.shared.make, limiter=self.shared.limiter)
        self.shared.application = self

    def stop(self, timeout: float = 1.7, *, handing_over: bool = False) -> None:
        """As that of any server. If other workers go on, the clients are told to come back (1012)."""
        super().stop(timeout, handing_over=handing_over or self.shared.stays())


def _serve(environ: Environ, start_response: StartResponse | None = None, *more: Any) -> Iterable[bytes] | Any:
    """Serve one request, by the settings in the environment. They are read at the first call, or by start()."""
    if start_response is None or more:
        return asgi.refuse(environ, start_response, *more)
    return from_environ()(environ, start_response)


if TYPE_CHECKING:
    application = _serve
else:

    def __getattr__(name: str) -> Any:
        if name != "application":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        start_worker()
        return _serve


@cache
def from_environ() -> Application:
    """The one Application of this process that the environment configures. Raises SettingsError."""
    settings = server_settings.from_environ(os.environ)
    if worker := gunicorn_workers.current():
        settings = replace(settings, link=str(worker.cfg.address))
    return Application(settings)


def start_worker() -> None:
    """If this process is a worker of gunicorn's own: have the interface made now, so that it can be bridged before a
    client comes. If that cannot be, end the process, and gunicorn with it: a new worker would fail as well."""
    worker = gunicorn_workers.current()
    if worker is None or hasattr(worker, "etherws_starts"):
        return
    try:
        if not gunicorn_workers.fit(worker):
            raise ListenError(gunicorn_workers.unfit())
        server = from_environ()
        server.adopt()
        server.start()
        garbage.settle()
    except EtherwsError as exc:
        worker.log.error("%s", exc)
        sys.exit(LOAD_ERROR)
    # The TLS context is gunicorn's own.
    warn_of_exposure(worker, server, worker.cfg.cert_reqs if worker.cfg.is_ssl else None)


def warn_of_exposure(worker: Any, application: Application, verify_mode: int | None) -> None:
    """Log a warning if this worker of gunicorn lets in anybody, or does not encrypt: see exposure(). Only the first of
    many does."""
    if worker.age == 1:
        for sock in worker.sockets:
            if warning := exposure(sock, application, verify_mode):
                worker.log.warning("%s", warning)
