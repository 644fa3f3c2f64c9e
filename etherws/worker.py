"""gunicorn's worker for etherws: gunicorn -k etherws.worker.Worker etherws.wsgi

gunicorn's own pywsgi worker with our handler, which can hand its socket over. The standing TAP is made when the worker
starts, and tunnels are closed with 1001 when it stops.
"""

from __future__ import annotations

import ssl
import sys
from functools import partial
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler, PyWSGIServer

from etherws import wsgi
from etherws.addresses import Networks
from etherws.errors import EtherwsError
from etherws.server.http import Handler
from etherws.server.introduced import IntroducedMixin
from etherws.server.lobby import LobbyMixin
from etherws.server.serve import TlsMixin, contexts, exposure


class _Handler(Handler, PyWSGIHandler):  # type: ignore[misc]
    #: gunicorn's access log, which gevent-websocket would hide.
    log_request = PyWSGIHandler.log_request


class _Server(LobbyMixin, IntroducedMixin, TlsMixin, PyWSGIServer):  # type: ignore[misc]
    def __init__(self, *args: Any, ssl_context: Any = None, **kwargs: Any) -> None:
        # gunicorn's own context stays as it was at the start; ours follows the files.
        super().__init__(*args, **kwargs)

    def trusted(self) -> Networks:
        return _ours(self.application).trusted

    def introducers(self) -> Networks | None:
        return _ours(self.application).introducers

    def close(self) -> None:
        super().close()
        _ours(self.application).stop()


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """Say ``-k etherws.worker.Worker`` to gunicorn."""

    wsgi_handler = _Handler

    server_class: Any = _Server

    def load_wsgi(self) -> None:
        """Load the application and make its TAP. What cannot be made once will not be by a thousand new workers."""
        super().load_wsgi()
        config, tls = self.cfg, None
        try:
            ours = _ours(self.wsgi)
            if config.is_ssl:
                client_ca = config.ca_certs if config.cert_reqs == ssl.CERT_REQUIRED else None
                tls = contexts(config.certfile, config.keyfile or config.certfile, client_ca)
                self.server_class = partial(_Server, contexts=tls)
            ours.start()
        except EtherwsError as exc:
            self.log.error("%s", exc)
            sys.exit(Arbiter.APP_LOAD_ERROR)
        for sock in self.sockets:
            # Said by the first of many workers.
            if self.age == 1 and (warning := exposure(sock, ours, tls)):
                self.log.warning("%s", warning)


def _ours(application: object) -> wsgi.Application:
    return application if isinstance(application, wsgi.Application) else wsgi.from_environ()
