"""gunicorn's worker for etherws: ``gunicorn -k etherws.worker.Worker etherws.wsgi``

gunicorn's own pywsgi worker, with our front door and our handler. It makes the server's first TAP when it starts, and
closes the tunnels with 1001 when it stops. Read next: server/front_door.py.
"""

from __future__ import annotations

import os
import ssl
import sys
from functools import partial
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler, PyWSGIServer

from etherws import garbage, wsgi
from etherws.errors import EtherwsError
from etherws.gunicorn.find_port_process import Launcher
from etherws.gunicorn.shared_ports import SharedPorts
from etherws.server.accepting import Accepting, allow_descriptors
from etherws.server.front_door import FrontDoor, TlsContexts
from etherws.server.gunicorn_workers import stop_at_exit
from etherws.server.http import Handler, speak_http
from etherws.server.serve import tls_contexts


class _Handler(Handler, PyWSGIHandler):  # type: ignore[misc]
    def log_request(self) -> None:
        """Write a line of gunicorn's access log, which gevent-websocket's own would hide. That log knows only requests:
        what was none is in ours, as a refusal."""
        if self.environ is not None:
            PyWSGIHandler.log_request(self)


class _Server(Accepting, PyWSGIServer):  # type: ignore[misc]
    def __init__(
        self,
        *args: Any,
        environ: dict[str, Any],
        contexts: TlsContexts | None = None,
        ssl_context: Any = None,
        **kwargs: Any,
    ) -> None:
        # gunicorn's own context never changes. Ours follows its files.
        environ["wsgi.url_scheme"] = "https" if contexts else "http"
        super().__init__(*args, environ=environ, **kwargs)
        served = _etherws(self.application)
        self.front_door = FrontDoor(served.settings, contexts)
        self.others = served.shared.others(lambda: served.tunnels, self.front_door.waiting)

    def handle(self, sock: Any, address: Any) -> None:
        self.front_door.admit(sock, address, partial(speak_http, self))

    def close(self) -> None:
        super().close()
        _etherws(self.application).stop()


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """For gunicorn's option ``-k``. A public name."""

    wsgi_handler = _Handler

    server_class: Any = _Server

    #: Tells wsgi.py to leave the start to this class.
    etherws_starts = True

    def init_process(self) -> None:
        """Begin. If gunicorn's ``user`` is another one, this is the last moment in which interfaces can be made."""
        if self.cfg.uid != os.geteuid():
            SharedPorts.launcher = Launcher()
        super().init_process()

    def load_wsgi(self) -> None:
        """Load the application and make its TAP. If that fails, gunicorn ends: a new worker would fail as well."""
        super().load_wsgi()
        allow_descriptors()
        config, tls = self.cfg, None
        try:
            application = _etherws(self.wsgi)
            if config.is_ssl:
                client_ca = config.ca_certs if config.cert_reqs == ssl.CERT_REQUIRED else None
                tls = tls_contexts(config.certfile, config.keyfile or config.certfile, client_ca)
                self.server_class = partial(_Server, contexts=tls)
            application.start()
            stop_at_exit(application.stop)
            garbage.settle()
        except EtherwsError as exc:
            self.log.error("%s", exc)
            sys.exit(Arbiter.APP_LOAD_ERROR)
        wsgi.warn_of_exposure(self, application, tls.get().verify_mode if tls else None)


def _etherws(application: object) -> wsgi.Application:
    """The Application that gunicorn was given, or the one that the environment configures."""
    return application if isinstance(application, wsgi.Application) else wsgi.from_environ()
