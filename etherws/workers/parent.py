"""``etherws server --workers N``: this process has the listening socket and the ports, its workers serve the clients.

It outlives each of its workers; so it has what must be there once, and counts what counts for all. server/serve.py
starts and ends it, as it does OneProcess. Read next: supervisor.py, port_server.py, worker_process.py.
"""

from __future__ import annotations

import logging
import signal

from gevent.socket import socket as GeventSocket

from etherws.server.application import Application
from etherws.server.observed import About, ObservedServer
from etherws.server.ports import Ports
from etherws.workers import load_table
from etherws.workers.load_table import LoadTable
from etherws.workers.port_server import PortServer
from etherws.workers.start_message import StartMessage
from etherws.workers.supervisor import Supervisor, Worker
from etherws.workers.worker_link import WorkerLink
from etherws.workers.workers_status import WorkersStatus

#: The files of certificate, key and client authorities.
Tls = tuple[str, str, str | None]


class Parent:
    """The ports, and the workers that use them: a Service of server/serve.py."""

    def __init__(self, sock: GeventSocket, application: Application, count: int, tls: Tls | None) -> None:
        """There will be `count` workers. `application` has the settings, and serves nobody here; the names of the files
        of `tls` are absolute."""
        self._socket, self._application, self._count, self._tls = sock, application, count, tls
        self._port_server: PortServer | None = None
        self._table = LoadTable(load_table.create())
        self._supervisor = Supervisor(count, self._table, (sock.fileno(), self._table.fd), self._attach)

    def open(self) -> str:
        """As Service.open()."""
        name = self._application.start()
        ports = self._application.ports
        assert isinstance(ports, Ports)
        self._port_server = PortServer(ports, self._application.settings, self._hung)
        return name

    def start(self) -> str:
        """As Service.start(). The workers have no more rights than this process has then."""
        self._supervisor.start()
        return f", with {self._count} workers"

    def reload(self) -> None:
        """As Service.reload(): each worker does."""
        self._supervisor.signal(signal.SIGHUP)

    def log_counters(self) -> None:
        """As Service.log_counters(): each worker does."""
        self._supervisor.signal(signal.SIGUSR1)

    def observed(self, about: About) -> ObservedServer:
        """As Service.observed()."""
        assert self._port_server is not None
        return ObservedServer(self._port_server.ports, WorkersStatus(self._port_server), about)

    def stop(self) -> None:
        """As Service.stop(). Workers are ended within 2 s, after their clients were told."""
        if self._port_server is not None:
            handing_over = self._application.store.outlives
            self._port_server.stop(handing_over=handing_over)
            self._supervisor.stop(handing_over=handing_over)
            self._port_server.close()
        self._table.close()
        self._application.stop()
        self._socket.close()

    def _attach(self, worker: Worker) -> None:
        """A worker was started: tell it what to do, and serve it."""
        level = logging.getLogger("etherws").getEffectiveLevel()
        # A new socket takes it at once.
        worker.channel.send(StartMessage(worker.number, self._application.settings, self._tls, level).encode())
        assert self._port_server is not None
        self._port_server.attach(worker.channel, worker.child.pid)

    def _hung(self, link: WorkerLink, why: str) -> None:
        for worker in self._supervisor.workers:
            if worker.child.pid == link.pid:
                self._supervisor.hung(worker, f"must be ended: {why}")
