"""gunicorn's worker for etherws: gunicorn -k etherws.worker.Worker etherws.wsgi

gunicorn's own pywsgi worker with our handler, which can hand its socket over. The standing TAP is made when the worker
starts, and tunnels are closed with 1001 when it stops.
"""

from __future__ import annotations

import sys

from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler, PyWSGIServer

from etherws import wsgi
from etherws.errors import EtherwsError
from etherws.forwarded import Trusted
from etherws.handler import Handler
from etherws.introduced import IntroducedMixin
from etherws.server import TlsMixin


class _Handler(Handler, PyWSGIHandler):  # type: ignore[misc]
    #: gunicorn's access log, which gevent-websocket would hide.
    log_request = PyWSGIHandler.log_request


class _Server(IntroducedMixin, TlsMixin, PyWSGIServer):  # type: ignore[misc]
    def introducers(self) -> Trusted | None:
        return _ours(self.application).introducers

    def close(self) -> None:
        super().close()
        _ours(self.application).stop()


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """Say ``-k etherws.worker.Worker`` to gunicorn."""

    wsgi_handler = _Handler
    server_class = _Server

    def load_wsgi(self) -> None:
        """Load the application and make its TAP. What cannot be made once will not be by a thousand new workers."""
        super().load_wsgi()
        try:
            _ours(self.wsgi).start()
        except EtherwsError as exc:
            self.log.error("%s", exc)
            sys.exit(Arbiter.APP_LOAD_ERROR)


def _ours(application: object) -> wsgi.Application:
    return application if isinstance(application, wsgi.Application) else wsgi.from_environ()
