"""A worker's process: it gets its settings, and serves clients until its parent tells it to end, or ends itself.

It has the front door, TLS, HTTP and the sessions; the ports are its parent's. Only the parent says when it ends:
signals for the whole group, such as Ctrl-C or those of systemctl stop, reach both, and the parent knows what the Close
is to say. Read next: supervisor.py, the parent's side; remote_ports.py, the ports.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Sequence

import gevent
from gevent.event import Event
from gevent.socket import socket as GeventSocket

from etherws import garbage
from etherws.errors import EtherwsError, WorkerError
from etherws.file_names import use_copies
from etherws.log_limit import log_unexpected_errors
from etherws.server import serve
from etherws.server.accepting import allow_descriptors
from etherws.server.application import Application
from etherws.workers import start_message
from etherws.workers.balance import Balance
from etherws.workers.child import end_with_parent
from etherws.workers.load_table import LoadTable
from etherws.workers.remote_ports import RemotePorts
from etherws.workers.worker_log import LevelPrefix, StderrHandler
from etherws.workers.worker_status import WorkerStatus

log = logging.getLogger(__name__)

#: Seconds that the tunnels have to close: less than the parent waits (supervisor.py, STOP_TIMEOUT).
CLOSE_TIMEOUT = 0.9


def main(arguments: Sequence[str]) -> int:
    """Run a worker; return its exit status. `arguments`: the parent's PID, and the descriptors of the channel, the
    listening socket and the table of loads."""
    parent, channel, listener, table = map(int, arguments)
    if not end_with_parent(parent):
        return 1
    use_copies(os.environ.get("ETHERWS_COPIES"))
    root = logging.getLogger()
    root.addHandler(StderrHandler(LevelPrefix("%(message)s")))
    log_unexpected_errors()
    try:
        _run(socket.socket(fileno=channel), GeventSocket(fileno=listener), LoadTable(table))
    except EtherwsError as exc:
        log.error("%s", exc)
        return exc.exit_status
    return 0


def _run(channel: socket.socket, listener: GeventSocket, table: LoadTable) -> None:
    """Serve until told to stop. Raises EtherwsError."""
    try:
        told = start_message.decode(channel.recv(start_message.SIZE_MAX))
    except (ValueError, OSError) as exc:
        raise WorkerError(f"{exc}; was etherws upgraded? Restart it") from exc
    logging.getLogger("etherws").setLevel(told.log_level)
    allow_descriptors()
    contexts = serve.tls_contexts(*told.tls) if told.tls else None
    stopped = Event()
    ports = RemotePorts(channel, lambda reason: stopped.set())
    application = Application(told.settings, make_ports=lambda: ports, limiter=ports.limiter)
    ports.shown = WorkerStatus(application, ports)
    server = serve.Server(listener, application, contexts)
    try:
        application.start()
        # Before the first row in the table, by which the parent knows that this worker is ready for them.
        gevent.signal_handler(signal.SIGHUP, serve.read_again, application, contexts)
        gevent.signal_handler(signal.SIGUSR1, application.log_counters)
        balance = Balance(table, lambda: application.tunnels, lambda: server.front_door.waiting.count)
        server.others = balance
        garbage.settle()
        server.start()
        gevent.spawn(balance.keep_publishing, gevent.sleep)
        stopped.wait()
    finally:
        server.close()
        application.stop(CLOSE_TIMEOUT, handing_over=ports.handing_over)
        server.stop(timeout=serve.STOP_TIMEOUT)
