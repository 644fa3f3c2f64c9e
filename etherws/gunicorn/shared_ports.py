"""The ports of an application in a worker of gunicorn: those of the process that all workers share.

In any other process the application has ports of its own, as without this. Which of the two it is, is known when they
are needed: gunicorn may load an application before it forks its workers. Users: wsgi.py, worker.py. Read next:
find_port_process.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import gevent

from etherws.gunicorn.find_port_process import Launcher, find
from etherws.gunicorn.worker_events import tell_events
from etherws.server import gunicorn_workers
from etherws.server.application import Application
from etherws.server.login_queue import Limiter, LoginLimiter
from etherws.server.ports import Ports
from etherws.server.ports_api import PortsApi
from etherws.server.serve import listening
from etherws.server.waiting_list import WaitingList
from etherws.settings import ServerSettings
from etherws.workers.balance import Balance
from etherws.workers.load_table import LoadTable
from etherws.workers.remote_ports import RemotePorts
from etherws.workers.worker_status import WorkerStatus

log = logging.getLogger(__name__)


class SharedPorts:
    """For one application."""

    #: What was started while this process could still make interfaces: worker.py.
    launcher: Launcher | None = None

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        #: Whose ports they are; the port process asks what it has to show.
        self.application: Application | None = None
        self._table: LoadTable | None = None
        self._ports: RemotePorts | None = None
        self._sockets: list[int] = []
        self._others_stay = False
        self._balance: Balance | None = None
        self._waiting: list[WaitingList] = []
        self.limiter = _Limiter()

    def make(self) -> PortsApi:
        """The ports. Raises DeviceError, SettingsError or WorkerError."""
        worker = gunicorn_workers.current()
        if worker is None:
            return Ports(self._settings, self._settings.resume_timeout)
        launcher, SharedPorts.launcher = SharedPorts.launcher, None
        sock, table = find(self._settings, _masters(worker.ppid), launcher, listen=_listen(worker, self._settings))
        self._table = LoadTable(table)

        def end(reason: str) -> None:
            # gunicorn starts another worker, and that one finds the ports, or has them made.
            log.error("%s: this worker ends", reason)
            worker.alive = False

        self._ports = ports = RemotePorts(sock, end)
        self.limiter.real = ports.limiter
        if self.application is not None:
            ports.shown, ports.on_reload = WorkerStatus(self.application, ports), self.application.reload
        tell_events(ports.offer, logging.getLogger("etherws"))
        # They are closed when the worker ends.
        self._sockets = [os.fstat(each.fileno()).st_ino for each in worker.sockets]
        # Then each worker has sockets of its own.
        self._others_stay = worker.cfg.reuse_port
        return ports

    def stays(self) -> bool:
        """Whether other workers serve on when this one ends: at a reload, and when only this one is ended."""
        return self._ports is not None and (self._others_stay or self._ports.stays(self._sockets))

    def others(self, tunnels: Callable[[], int], waiting: WaitingList) -> Balance | None:
        """What leaves new connections to the other workers; None if there are none. `waiting` is of one server: a
        worker has one for each address that it listens on."""
        self._waiting.append(waiting)
        if self._balance is None and self._table is not None:
            self._balance = Balance(self._table, tunnels, lambda: sum(each.count for each in self._waiting))
            gevent.spawn(self._balance.keep_publishing, gevent.sleep)
        return self._balance


class _Limiter:
    """Counts failed logins: of this process, until the ports are known to be others'."""

    def __init__(self) -> None:
        self.real: Limiter = LoginLimiter()

    def wait(self, address: str, now: float) -> float:
        """As Limiter.wait()."""
        return self.real.wait(address, now)

    def failed(self, address: str, now: float) -> None:
        """As Limiter.failed()."""
        self.real.failed(address, now)


def _listen(worker: Any, settings: ServerSettings) -> str:
    """Where gunicorn listens, for who wants to see it."""
    tls = bool(worker.cfg.is_ssl)
    return ", ".join(listening(sock, None, settings.path, tls=tls) for sock in worker.sockets)


def _masters(parent: int) -> tuple[int, ...]:
    """gunicorn's master, and the one that it takes over from while gunicorn upgrades itself (USR2)."""
    before = os.environ.get("GUNICORN_PID", "")
    return (parent, int(before)) if before.isdecimal() else (parent,)
