"""A server of several processes, for tests: one with the ports, and workers that each listen on a port of their own.

``python -m tests.lab.workers N OPTIONS`` starts both; OPTIONS are the values of ServerSettings, as JSON. A worker that
hangs is ended by SIGKILL. The lines that tests wait for: "worker 0 has PID 123", "123 listens".
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from typing import Any

import gevent
from gevent.event import Event

from etherws.server.application import Application
from etherws.server.ports import Ports
from etherws.server.serve import Server
from etherws.settings import ServerSettings
from etherws.workers import worker_link
from etherws.workers.datagrams import pair
from etherws.workers.port_server import PortServer
from etherws.workers.remote_ports import RemotePorts
from tests.lab.hosts import Host, Process
from tests.lab.peer import Peer, basic, request

#: The first worker's TCP port; the others have the next ones.
FIRST = 8000

#: As the constant of the same name, but shorter, so that a test need not wait for it; longer than a client waits for
#: another session's end (server/port.py, EVICT_TIMEOUT).
HUNG_AFTER = 2.5


class Workers:
    """Such a server, in a machine."""

    def __init__(self, host: Host, number: int, **settings: Any) -> None:
        self._host = host
        options = json.dumps({"bridge": "br0", **settings})
        self.process: Process = host.run(sys.executable, "-m", "tests.lab.workers", str(number), options)
        self.process.says(" listens", times=number)
        lines = [line.split() for line in self.process.output.splitlines() if " has PID " in line]
        self.pids = [int(words[-1]) for words in lines]

    def join(self, worker: int, name: str = "", **headers: str) -> Peer:
        """A client of this worker, joined; with its name for a password."""
        peer = Peer(self._host, ("127.0.0.1", FIRST + worker))
        login = {"Authorization": basic(f"{name}:{name}")} if name else {}
        peer.say(request(**login, **headers))
        head = peer.head()
        assert head.startswith(b"HTTP/1.1 101 "), head
        return peer

    def asked(self, worker: int, login: str, source: str = "127.0.0.1") -> bytes:
        """The status line that a client at this address gets."""
        peer = Peer(self._host, ("127.0.0.1", FIRST + worker), source=source)
        peer.say(request(Authorization=basic(login)))
        status = peer.head().split(b"\r\n")[0]
        peer.close()
        return status


def main(number: int, options: str) -> None:
    """The process with the ports."""
    worker_link.HUNG_AFTER = HUNG_AFTER
    settings = ServerSettings(**json.loads(options))
    ports = Ports(settings, settings.resume_timeout)

    def kill(link: Any, why: str) -> None:
        os.kill(link.pid, signal.SIGKILL)

    server = PortServer(ports, settings, kill)
    workers = []
    for index in range(number):
        ours, theirs = pair()
        argv = [sys.executable, "-m", "tests.lab.workers", "worker", str(theirs.fileno()), str(FIRST + index), options]
        workers.append(subprocess.Popen(argv, pass_fds=[theirs.fileno()]))
        theirs.close()
        server.attach(ours, workers[-1].pid)
        print(f"worker {index} has PID {workers[-1].pid}", flush=True)
    stop = Event()
    gevent.signal_handler(signal.SIGTERM, stop.set)
    stop.wait()
    for worker in workers:
        worker.kill()
        worker.wait()
    server.close()
    ports.close()


def work(fd: int, port: int, options: str) -> None:
    """A worker."""
    stop = Event()
    ports = RemotePorts(socket.socket(fileno=fd), lambda reason: stop.set())
    application = Application(ServerSettings(**json.loads(options)), make_ports=lambda: ports, limiter=ports.limiter)
    server = Server(("127.0.0.1", port), application)
    application.start()
    server.start()
    print(f"{os.getpid()} listens", flush=True)
    stop.wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    if sys.argv[1] == "worker":
        work(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        main(int(sys.argv[1]), sys.argv[2])
