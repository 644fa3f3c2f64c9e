"""Who may use the ports of a gunicorn, and until when they are there: the rules of port_process.py.

Its workers come and go: by reloads, upgrades, timeouts. The ports stay as long as one of gunicorn's masters may start
another worker, and not a moment longer. Read next: hello.py, what a worker says; workers/port_server.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.pool import Group

from etherws.errors import EtherwsError
from etherws.gunicorn import hello
from etherws.gunicorn.hello import Peer
from etherws.log_limit import LogLimit
from etherws.server.ports import Ports
from etherws.settings import ServerSettings
from etherws.workers import load_table
from etherws.workers.load_table import LoadTable
from etherws.workers.port_server import PortServer
from etherws.workers.worker_link import WorkerLink

log = logging.getLogger(__name__)

#: Seconds for a worker's hello, which it sends at once.
SPEAK_TIMEOUT = 5.0

#: Seconds without any worker after which the ports go although a master is there: it may have other interfaces now.
#: Longer than gunicorn takes to start workers, and than a port is kept for a client.
IDLE = 60.0

#: Seconds before a worker is accepted again after an error, such as that no descriptor is free.
PAUSE = 0.5

#: Seconds that a worker of a gunicorn goes on to ask, if the one that has these interfaces is about to end.
OTHERS = 3.0


class Observed(Protocol):
    """What shows the ports."""

    def close(self) -> None:
        """Show nothing any more."""


#: Begins to show the ports of a server with these settings: where it listens, and what ends it, come last.
Observe = Callable[[PortServer, ServerSettings, str, Callable[[], object]], Observed]


class PortService:
    """The ports of one gunicorn."""

    def __init__(
        self,
        listener: socket.socket,
        user: int,
        make_ports: Callable[[ServerSettings], Ports] = lambda settings: Ports(settings, settings.resume_timeout),
        idle: float = IDLE,
        master: int = 0,
        observe: Observe | None = None,
    ) -> None:
        """`listener` has the name; `user` is whom workers run as, and `master` starts the first ones. `make_ports`
        makes the ports with the settings of the first worker, and `observe` what shows them."""
        self._listener, self._user, self._make_ports, self._idle = listener, user, make_ports, idle
        self._settings: ServerSettings | None = None
        self._server: PortServer | None = None
        self._observe, self._observed = observe, contextlib.ExitStack()
        self._failure = ""
        self._table = LoadTable(load_table.create())
        #: The masters that run, by PID: descriptors and their watchers.
        self._masters: dict[int, tuple[int, Any]] = {}
        #: Descriptors of the workers' processes: a number may be another process's one day.
        self._processes: dict[WorkerLink, int] = {}
        self._checking = BoundedSemaphore(1)
        self._admitting = Group()
        #: Set when a worker or a master comes or goes.
        self._changed = Event()
        self._log = LogLimit(log)
        if master:
            self._remember(master)

    def run(self) -> None:
        """Serve workers until the last one and its masters are gone. Raises DeviceError if an interface cannot be
        removed."""
        acceptor = gevent.spawn(self._accept)
        try:
            while True:
                self._changed.clear()
                if self._server is not None or self._failure:
                    if not self._workers() and (not self._masters or self._failure):
                        break
                    if not self._changed.wait(None if self._workers() else self._idle) and not self._workers():
                        break
                elif not self._changed.wait(self._idle):
                    break
        finally:
            # The name stays until the interfaces are gone. Who comes meanwhile is hung up on, and starts another one.
            acceptor.kill()
            self._admitting.kill()
            self._close()

    def _workers(self) -> int:
        return len(self._server.workers) if self._server else 0

    def _close(self) -> None:
        for pid in list(self._masters):
            self._forget(pid)
        if self._server is not None:
            self._observed.close()
            self._server.close()
            self._server.ports.close()
        self._table.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError as exc:
                self._log.log(logging.ERROR, "accept", "cannot accept a worker: %s", exc.strerror)
                gevent.sleep(PAUSE)
                continue
            self._admitting.spawn(self._admit, sock)

    def _admit(self, sock: Any) -> None:
        """One connection: a worker of ours, of others, or a stranger."""
        with contextlib.ExitStack() as process, contextlib.ExitStack() as stack:
            stack.enter_context(sock)
            try:
                peer = hello.peer_of(sock)
                if peer.uid not in (0, self._user, os.geteuid()):
                    message = "user %d (pid %d) tried to connect as a worker"
                    self._log.log(logging.WARNING, "stranger", message, peer.uid, peer.pid)
                    return
                # At once: later the number may be another process's.
                pidfd = os.pidfd_open(peer.pid)
                process.callback(os.close, pidfd)
                master = hello.parent_of(peer.pid)
                sock.settimeout(SPEAK_TIMEOUT)
                data = sock.recv(hello.SIZE_MAX)
                # One at a time: to make the first port takes a moment.
                with self._checking:
                    refusal, wait = self._check(data, peer, master)
                if refusal:
                    sock.sendall(hello.answer(refusal, wait))
                    return
                socket.send_fds(sock, [hello.answer()], [self._table.fd])
            except OSError:
                # It has ended, or says nothing.
                return
            except EtherwsError as exc:
                # It may have ended meanwhile.
                with contextlib.suppress(OSError):
                    sock.sendall(hello.answer(str(exc)))
                return
            assert self._server is not None
            stack.pop_all()
            link = self._server.attach(sock, peer.pid)
            self._processes[link] = pidfd
            link.ended.wait()
            del self._processes[link]
            self._changed.set()

    def _check(self, data: bytes, peer: Peer, master: int) -> tuple[str, float]:
        """Why this worker, which `master` has started, cannot have ports, if so, and how long it may ask again. Raises
        EtherwsError."""
        said = hello.read_hello(data)
        # While gunicorn upgrades itself, the new master is a child of the old one.
        masters = {master, hello.parent_of(master)} & set(said.masters)
        if master not in masters:
            # Another program of the same user would get interfaces, with rules of its own choice.
            self._log.log(
                logging.WARNING,
                "no worker",
                "pid %d of user %d is no worker of gunicorn, though it says so: it gets no interface",
                *peer,
            )
            return "gunicorn has not started this process, or not in the PID namespace of the first worker", 0.0
        if self._masters and not masters & set(self._masters):
            there = ", ".join(map(str, self._masters))
            return (
                f"another gunicorn (pid {there}) has the interfaces {said.settings.device}: give this one others by"
                " ETHERWS_SERVER_DEVICE, or stop that one",
                OTHERS,
            )
        if self._server is None and not self._failure:
            self._begin(said)
        if self._failure:
            return self._failure, 0.0
        assert self._settings is not None
        if found := hello.difference(self._settings, said.settings):
            return f"the interfaces were made with other settings: {found}; {hello.RESTART}", 0.0
        for pid in masters:
            self._remember(pid)
        return "", 0.0

    def _begin(self, said: hello.Hello) -> None:
        """The first worker: its settings count."""
        # Joins and leaves are events, whatever the log shows.
        logging.getLogger("etherws").setLevel(min(said.log_level, logging.INFO))
        for handler in logging.getLogger().handlers:
            handler.setLevel(said.log_level)
        self._settings = said.settings
        try:
            ports = self._make_ports(said.settings)
        except EtherwsError as exc:
            self._failure = str(exc)
            self._changed.set()
            return
        self._server = PortServer(ports, said.settings, self._hung)
        self._server.stays = self._stays
        if self._observe is not None:
            observed = self._observe(self._server, said.settings, said.listen, self._stop_masters)
            self._observed.callback(observed.close)
        self._changed.set()

    def _stop_masters(self) -> None:
        """End gunicorn: the ports then go by themselves."""
        for fd, _ in self._masters.values():
            try:
                signal.pidfd_send_signal(fd, signal.SIGTERM)
            except OSError as exc:
                log.error("cannot end gunicorn: %s", exc.strerror)

    def _remember(self, pid: int) -> None:
        """Note a master, to know when it has ended."""
        if pid in self._masters:
            return
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            # It has ended already.
            return
        watcher: Any = gevent.get_hub().loop.io(fd, 1)
        self._masters[pid] = fd, watcher
        watcher.start(self._forget, pid)

    def _forget(self, pid: int) -> None:
        fd, watcher = self._masters.pop(pid)
        watcher.stop()
        watcher.close()
        os.close(fd)
        self._changed.set()

    def _stays(self, sockets: list[int]) -> bool:
        """Whether a master still listens there. One that stops closes its sockets first, and then ends its workers."""
        wanted = {f"socket:[{inode}]" for inode in sockets}
        return any(wanted & set(_files(pid)) for pid in self._masters)

    def _hung(self, link: WorkerLink, why: str) -> None:
        """Kill a worker that does not do what it should. gunicorn starts another one."""
        if (pidfd := self._processes.get(link)) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _files(pid: int) -> Iterator[str]:
    """What a process has open."""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{name}")
