"""gunicorn's own workers: which one this process is, what it lacks, and when it stops.

gunicorn tells an application nothing of this. The worker is found by its signal handlers, and watched for its end, so
that nobody needs a configuration file. Our own worker needs none of this: etherws/worker.py. Read next: takeover.py,
which takes a connection from such a worker.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import signal
import ssl
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import gevent

from etherws.access import certificates
from etherws.errors import EtherwsError, SettingsError, printable
from etherws.reloadable import Reloadable
from etherws.settings import ServerSettings

log = logging.getLogger(__name__)

#: What to do about most of what is said here.
HINT = "run gunicorn with -k etherws.worker.Worker"

#: Seconds between two looks at whether the worker is to stop. The tunnels are to be closed within 2 s.
LOOK = 0.2

#: Signals whose handler is a method of the worker (gunicorn.workers.base, Worker.init_signals). An application may have
#: replaced some.
_SIGNALS = (signal.SIGTERM, signal.SIGABRT, signal.SIGUSR1, signal.SIGQUIT)

#: The modules of workers whose socket takeover.py can take.
_GEVENT, _GEVENT_WEBSOCKET = "gunicorn.workers.ggevent", "geventwebsocket.gunicorn.workers"


def current() -> Any | None:
    """gunicorn's worker that this process is; None in any other process, before the fork, and for ASGI workers."""
    base = sys.modules.get("gunicorn.workers.base")
    owners = (getattr(signal.getsignal(number), "__self__", None) for number in _SIGNALS)
    return next((owner for owner in owners if base and isinstance(owner, base.Worker)), None)


def fit(worker: Any) -> bool:
    """Whether this worker can give its sockets away."""
    return _is(worker, _GEVENT)


def unfit(environ: Mapping[str, Any] = MappingProxyType({})) -> str:
    """What to say of a server that has not given its socket: it names the worker, or else the request's server."""
    worker = current()
    name = f"gunicorn's {type(worker).__name__}" if worker else printable(str(environ.get("SERVER_SOFTWARE")))
    return f"this server ({name}) cannot give its socket to etherws: {HINT}"


def stop_at_exit(stop: Callable[[], None]) -> None:
    """Call `stop` when this process ends. At SIGINT and SIGQUIT gunicorn ends a worker without closing its servers."""

    def call() -> None:
        # gunicorn sends such a signal twice, and the worker then raises SystemExit wherever it is.
        with contextlib.suppress(SystemExit):
            _stop(stop)
            return
        _stop(stop)

    atexit.register(call)


def _stop(stop: Callable[[], None]) -> None:
    try:
        stop()
    except EtherwsError as exc:
        log.error("%s", exc)


class Host:
    """A server that is not ours, once it runs this process. `contexts` is as for ClientCertificate, and None if clients
    need no certificate."""

    def __init__(self, settings: ServerSettings, stop: Callable[[], None]) -> None:
        """Log once what this server lacks. `stop` is called when it stops. Raises SettingsError or ListenError."""
        worker = current()
        name = f"gunicorn's {type(worker).__name__}" if worker else "this server"
        if settings.proxy_protocol:
            raise SettingsError(
                f"ETHERWS_SERVER_PROXY_PROTOCOL: {name} cannot read the PROXY header of etherws: {HINT}"
            )
        self.contexts = _client_contexts(worker.cfg) if worker else None
        stop_at_exit(stop)
        if worker:
            gevent.spawn(_watch, worker, stop)
        # Only the first of many workers warns.
        if worker is None or worker.age == 1:
            (worker.log if worker else log).warning("%s", _lacks(name, worker))


def _client_contexts(config: Any) -> Reloadable[ssl.SSLContext] | None:
    """For gunicorn's settings, contexts that have the authorities of ``--ca-certs``. Raises ListenError."""
    if not (config.is_ssl and config.ca_certs and config.cert_reqs == ssl.CERT_REQUIRED):
        return None
    # gunicorn never reads its own certificate again, so a change of it is none here.
    cert, key, ca = config.certfile, config.keyfile or config.certfile, config.ca_certs
    return Reloadable(lambda: certificates.server_context(cert, key, ca), [ca])


def _watch(worker: Any, stop: Callable[[], None]) -> None:
    """Call `stop` when the worker is to end: by SIGTERM, a reload, max_requests. It itself would wait for the tunnels,
    for all of graceful_timeout."""
    while worker.alive:
        gevent.sleep(LOOK)
    _stop(stop)


def _lacks(name: str, worker: Any | None) -> str:
    """The warning."""
    early = worker is not None and _is(worker, _GEVENT_WEBSOCKET)
    version = "version 1 of the wire only, because it sends its 101 first; " if early else ""
    return (
        f"{name} carries tunnels with {version}no waiting list at the door, no deadline for TLS handshakes, none or"
        f" other limits for requests, no PROXY protocol, no new certificate without a restart: better {HINT}"
    )


def _is(worker: Any, module: str) -> bool:
    return any(kind.__module__ == module for kind in type(worker).__mro__)
