"""A worker's process: it gets its orders, and serves clients until its parent tells it to end, or ends itself.

It has the front door, TLS, HTTP and the sessions; the ports are its parent's. Only the parent says when it ends:
signals for the whole group, such as Ctrl-C or those of systemctl stop, reach both, and the parent knows what the Close
is to say. Read next: supervisor.py, the parent's side; remote_ports.py, the ports.
"""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Sequence

import gevent
from gevent.socket import socket as GeventSocket

from etherws.errors import EtherwsError, WorkerError
from etherws.log_limit import LogLimit
from etherws.server import serve
from etherws.server.accepting import allow_descriptors
from etherws.server.application import Application
from etherws.workers import orders
from etherws.workers.balance import Balance
from etherws.workers.child import end_with_parent
from etherws.workers.lines import ForParent, Lines
from etherws.workers.load_table import LoadTable
from etherws.workers.remote_ports import RemotePorts

log = logging.getLogger(__name__)

#: Seconds between two lines of a worker's row: a quarter of what makes it stale.
BEAT = 0.25

#: Seconds that the tunnels have to close: less than the parent waits (supervisor.py, STOP_TIMEOUT).
CLOSE_TIMEOUT = 1.3


def main(arguments: Sequence[str]) -> int:
    """Run a worker; return its exit status. `arguments`: the parent's PID, and the descriptors of the channel, the
    listening socket and the table of loads."""
    parent, channel, listener, table = map(int, arguments)
    if not end_with_parent(parent):
        return 1
    root = logging.getLogger()
    root.addHandler(Lines(ForParent("%(message)s")))
    _log_unexpected_errors()
    try:
        _run(socket.socket(fileno=channel), GeventSocket(fileno=listener), LoadTable(table))
    except EtherwsError as exc:
        log.error("%s", exc)
        return exc.exit_status
    return 0


def _run(channel: socket.socket, listener: GeventSocket, table: LoadTable) -> None:
    """Serve until told to stop. Raises EtherwsError."""
    try:
        told = orders.decode(channel.recv(orders.SIZE_MAX))
    except (ValueError, OSError) as exc:
        raise WorkerError(f"{exc}; was etherws upgraded? Restart it") from exc
    logging.getLogger("etherws").setLevel(told.log_level)
    allow_descriptors()
    contexts = serve.tls_contexts(*told.tls) if told.tls else None
    ports = RemotePorts(channel)
    application = Application(told.settings, make_ports=lambda: ports, limiter=ports.limiter)
    server = serve.Server(listener, application, contexts)
    try:
        application.start()
        balance = Balance(table, lambda: application.tunnels, lambda: server.front_door.waiting.count)
        server.others = balance
        server.start()
        gevent.spawn(_beat, balance)
        gevent.signal_handler(signal.SIGHUP, serve.reload, application, contexts)
        gevent.signal_handler(signal.SIGUSR1, application.log_counters)
        ports.stopped.wait()
    finally:
        server.close()
        application.stop(CLOSE_TIMEOUT)
        server.stop(timeout=serve.STOP_TIMEOUT)


def _beat(balance: Balance) -> None:
    while True:
        gevent.sleep(BEAT)
        balance.publish()


def _log_unexpected_errors() -> None:
    """As cli/log_writer.py, log_unexpected_errors()."""
    limit = LogLimit(log)

    def print_exception(context: object, kind: type[BaseException], error: BaseException | None, trace: object) -> None:
        limit.unexpected(error if isinstance(error, BaseException) else kind())

    gevent.get_hub().print_exception = print_exception  # type: ignore[method-assign, assignment]
