"""``etherws server --workers N``: this process has the listening socket and the ports, its workers serve the clients.

It outlives each of its workers; so it has what must be there once, and counts what counts for all. Compare
server/serve.py, which is all of it in one process. Read next: supervisor.py, port_server.py, worker_process.py.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from functools import partial

import gevent
from gevent.event import Event

from etherws.file_names import absolute
from etherws.server import serve as one_process
from etherws.server.accepting import allow_descriptors
from etherws.server.application import Application
from etherws.server.kept_listener import KeptListener
from etherws.server.ports import Ports
from etherws.workers import load_table
from etherws.workers.load_table import LoadTable
from etherws.workers.orders import Orders
from etherws.workers.port_server import PortServer
from etherws.workers.supervisor import Supervisor, Worker
from etherws.workers.worker_link import WorkerLink

log = logging.getLogger(__name__)

#: The files of certificate, key and client authorities.
Tls = tuple[str, str, str | None]


def serve(
    application: Application,
    count: int,
    *,
    address: str | None,
    port: int,
    tls: Tls | None,
    ready: Callable[[str], None],
    stop: Event,
    chosen: bool = True,
    patient: bool = False,
    opened: Callable[[], object] = one_process.nothing,
    reload: Callable[[Callable[[], object]], object] = one_process.at_once,
) -> None:
    """Serve by `count` workers until `stop` is set. Otherwise as server/serve.py: serve(); `application` has the
    settings, and serves nobody here. Raises ListenError, DeviceError or WorkerError; then nothing of what it made
    remains."""
    allow_descriptors()
    contexts = None
    if tls:
        tls = (
            absolute("--certfile", tls[0]),
            absolute("--keyfile", tls[1]),
            tls[2] and absolute("--client-ca", tls[2]),
        )
        contexts = one_process.tls_contexts(*tls)
    store = application.store
    listener = one_process.listener_of(store, address, port, chosen, stop if patient else None)
    if listener is None:
        return
    sock = listener.socket
    parent: Parent | None = None
    try:
        parent = Parent(application, count, sock.fileno(), tls)
        # The workers have no more rights than this process from now on.
        opened()
        one_process.close_rest(store)
        parent.start()
        gevent.signal_handler(signal.SIGHUP, reload, partial(parent.supervisor.signal, signal.SIGHUP))
        gevent.signal_handler(signal.SIGUSR1, parent.supervisor.signal, signal.SIGUSR1)
        if warning := one_process.exposure(sock, application, contexts.get().verify_mode if contexts else None):
            log.warning("%s", warning)
        where = address if isinstance(listener, KeptListener) else None
        up = one_process.started(parent.name, sock, where, application.settings.path, tls=tls is not None)
        ready(f"{up}, with {count} workers")
        stop.wait()
    finally:
        keep = store.outlives
        listener.close(handing_over=keep)
        if parent is not None:
            parent.stop(handing_over=keep)
        application.stop(handing_over=keep)
        sock.close()


class Parent:
    """The ports, and the workers that use them."""

    def __init__(self, application: Application, count: int, listener: int, tls: Tls | None) -> None:
        """Make the first port, or take those that the last process has left. `listener` is the descriptor of the
        listening socket. Raises DeviceError or SettingsError."""
        self._application, self._tls = application, tls
        #: The name of the first port's interface.
        self.name = application.start()
        ports = application.ports
        assert isinstance(ports, Ports)
        self._port_server = PortServer(ports, application.settings, self._hung)
        self._table = LoadTable(load_table.create())
        self.supervisor = Supervisor(count, self._table, (listener, self._table.fd), self._attach)

    def start(self) -> None:
        """Start the workers. Raises WorkerError."""
        self.supervisor.start()

    def stop(self, *, handing_over: bool = False) -> None:
        """End the workers, within 2 s. With `handing_over` their clients are told to come back at once."""
        self._port_server.stop(handing_over=handing_over)
        self.supervisor.stop(handing_over=handing_over)
        self._port_server.close()
        self._table.close()

    def _attach(self, worker: Worker) -> None:
        """A worker was started: tell it what to do, and serve it."""
        level = logging.getLogger("etherws").getEffectiveLevel()
        # A new socket takes it at once.
        worker.channel.send(Orders(worker.number, self._application.settings, self._tls, level).encode())
        self._port_server.attach(worker.channel, worker.child.pid)

    def _hung(self, link: WorkerLink, why: str) -> None:
        for worker in self.supervisor.workers:
            if worker.child.pid == link.pid:
                self.supervisor.hung(worker, f"must be ended: {why}")
