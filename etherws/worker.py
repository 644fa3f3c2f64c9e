"""gunicorn's worker for etherws: gunicorn -k etherws.worker.Worker etherws.wsgi

gunicorn's own pywsgi worker with our handler, which can hand its socket over. The standing TAP is made when the worker
starts, and tunnels are closed with 1001 when it stops.
"""

from __future__ import annotations

from gunicorn.workers.ggevent import GeventPyWSGIWorker, PyWSGIHandler, PyWSGIServer

from etherws import wsgi
from etherws.handler import Handler


class _Handler(Handler, PyWSGIHandler):  # type: ignore[misc]
    #: gunicorn's access log, which gevent-websocket would hide.
    log_request = PyWSGIHandler.log_request


class _Server(PyWSGIServer):  # type: ignore[misc]
    def start(self) -> None:
        _application(self.application).start()
        super().start()

    def close(self) -> None:
        super().close()
        _application(self.application).stop()


class Worker(GeventPyWSGIWorker):  # type: ignore[misc]
    """Say ``-k etherws.worker.Worker`` to gunicorn."""

    wsgi_handler = _Handler
    server_class = _Server


def _application(application: object) -> wsgi.Application:
    return application if isinstance(application, wsgi.Application) else wsgi.from_environ()
