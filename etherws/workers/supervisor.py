"""``etherws server --workers N``: the workers of this process, which has the ports and the listening socket.

A worker that ends is replaced, and so is one that hangs. Which worker takes which connection is not decided here:
balance.py. What a worker is told at its start is in start_message.py. Read next: child.py, one process;
port_server.py, what workers ask of this process.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Callable

import gevent
from gevent.event import Event

from etherws.errors import WorkerError
from etherws.workers.child import DEVNULL, Child, command
from etherws.workers.load_table import LoadTable, Row
from etherws.workers.worker_log import Repeated, read_lines

log = logging.getLogger(__name__)

#: Seconds between two looks at a worker's row.
LOOK = 1.0

#: Looks after which a worker hangs whose row has not changed: it writes four times a second. They are counted, because
#: a machine that slept did not look.
LOOKS = 10

#: Seconds that a worker has for its start, on a slow machine; and between two looks at whether it has started.
START_TIMEOUT, START_LOOK = 60.0, 0.02

#: Seconds before a worker is started again that has not run for LONG seconds: the first time, and at most. It doubles.
#: To start one every two seconds costs a quarter of a processor.
FIRST_PAUSE, LONGEST_PAUSE, LONG = 0.5, 30.0, 2.0

#: Seconds that the workers have to close their tunnels. The whole stop is to take 2 s; if another process takes over,
#: clients wait for it meanwhile, and workers take half a second (server/application.py, HAND_OVER_TIMEOUT).
STOP_TIMEOUT, HAND_OVER_TIMEOUT = 1.6, 0.9

#: Seconds that a killed process may take to be gone. More only if the kernel waits for a device.
KILL_TIMEOUT = 1.0


class Worker:
    """One worker, from its start to its end."""

    def __init__(self, number: int, child: Child, channel: socket.socket) -> None:
        """`channel` is this end of the connection to it."""
        self.number, self.child, self.channel = number, child, channel
        #: Whether it has its row, and accepts connections.
        self.ready = False
        #: Ends when all that it has said is logged.
        self.reader: gevent.Greenlet[..., None]

    @property
    def name(self) -> str:
        """As the log calls it."""
        return f"worker {self.number}"


class Supervisor:
    """Keeps a number of workers."""

    def __init__(
        self,
        count: int,
        table: LoadTable,
        descriptors: tuple[int, ...],
        attach: Callable[[Worker], None],
        *,
        argv: Callable[..., list[str]] = command,
        sleep: Callable[[float], object] = gevent.sleep,
    ) -> None:
        """`descriptors` are what each worker inherits, beside its channel. `attach` is called with each worker that was
        started, to serve its channel. `argv` makes the command of a worker."""
        self._count, self._table, self._descriptors, self._attach = count, table, descriptors, attach
        self._argv, self._sleep = argv, sleep
        self._workers: dict[int, Worker] = {}
        self._keepers: list[gevent.Greenlet[..., None]] = []
        self._stopping = False
        self._repeated = Repeated()
        #: Set when the first start of each number has come to something.
        self._decided = {number: Event() for number in range(1, count + 1)}
        self._last_line = ""

    @property
    def workers(self) -> list[Worker]:
        """The last one of each number; it may have ended."""
        return list(self._workers.values())

    def start(self) -> None:
        """Start them all, and return when they accept connections. Raises WorkerError if none does."""
        self._keepers = [gevent.spawn(self._keep, number) for number in self._decided]
        for event in self._decided.values():
            event.wait()
        if not any(worker.ready for worker in self._workers.values()):
            self.stop()
            raise WorkerError(f"no worker could be started: {self._last_line or 'the log says why'}")

    def signal(self, number: int) -> None:
        """Send a signal to each worker that is ready for it."""
        for worker in self._workers.values():
            if worker.ready:
                worker.child.signal(number)

    def hung(self, worker: Worker, what: str) -> None:
        """Kill a worker that does not do what it should: another one takes its place."""
        if not worker.child.ended.is_set():
            log.error(
                "%s (pid %d) %s: it is killed, and another one takes its place; its %d clients connect again",
                worker.name,
                worker.child.pid,
                what,
                self._clients(worker),
            )
            worker.child.signal(signal.SIGKILL)

    def stop(self, *, handing_over: bool = False) -> None:
        """Wait until all have ended, who were told so before; kill those that take too long. With `handing_over` they
        have less time."""
        self._stopping = True
        gevent.killall(self._keepers)
        workers = list(self._workers.values())
        timeout = HAND_OVER_TIMEOUT if handing_over else STOP_TIMEOUT
        gevent.wait([worker.child.ended for worker in workers], timeout=timeout)
        for worker in workers:
            if not worker.child.ended.is_set():
                log.warning("%s (pid %d) did not end in time: it is killed", worker.name, worker.child.pid)
                worker.child.kill(KILL_TIMEOUT)

    def _keep(self, number: int) -> None:
        """Have a worker of this number, until the stop."""
        pause = 0.0
        while not self._stopping:
            self._sleep(pause)
            try:
                worker = self._start(number)
            except OSError as exc:
                self._last_line = f"{exc.strerror or exc}{': ' if exc.filename else ''}{exc.filename or ''}"
                log.error("cannot start worker %d: %s", number, self._last_line)
                lived = False
            else:
                lived = self._watch(worker)
                # What it said comes first.
                worker.reader.join(KILL_TIMEOUT)
                if self._stopping:
                    return
                self._say_end(worker)
            self._decided[number].set()
            pause = 0.0 if lived else min(2 * pause, LONGEST_PAUSE) or FIRST_PAUSE

    def _start(self, number: int) -> Worker:
        """Start a worker. Raises OSError."""
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        out, its_end = os.pipe()
        try:
            arguments = map(str, (os.getpid(), its.fileno(), *self._descriptors))
            child = Child(
                self._argv("workers", *arguments),
                (its.fileno(), *self._descriptors),
                stdin=DEVNULL,
                stdout=its_end,
                stderr=its_end,
            )
        except BaseException:
            ours.close()
            os.close(out)
            raise
        finally:
            its.close()
            os.close(its_end)
        worker = Worker(number, child, ours)
        worker.reader = gevent.spawn(read_lines, out, worker.name, log, self._repeated, self._note)
        self._workers[number] = worker
        self._attach(worker)
        return worker

    def _note(self, line: str) -> None:
        self._last_line = line

    def _watch(self, worker: Worker) -> bool:
        """Return when the worker has ended: whether it had run for a while. Kill it if it hangs."""
        for _ in range(round(START_TIMEOUT / START_LOOK)):
            if worker.child.ended.wait(START_LOOK):
                return False
            if self._table.of(worker.child.pid):
                break
        else:
            self.hung(worker, f"has not started within {START_TIMEOUT:.0f} s")
            worker.child.ended.wait()
            return False
        worker.ready = True
        if self._decided[worker.number].is_set():
            log.info("%s (pid %d) has taken its place", worker.name, worker.child.pid)
        self._decided[worker.number].set()
        looks = late = 0
        before: Row | None = None
        while not worker.child.ended.wait(LOOK):
            row = self._table.of(worker.child.pid)
            looks, late, before = looks + 1, late + 1 if row == before else 0, row
            if late == LOOKS:
                self.hung(worker, f"has not answered for {late * LOOK:.0f} s")
        return looks * LOOK >= LONG

    def _say_end(self, worker: Worker) -> None:
        pid, end = worker.child.pid, worker.child.end
        if worker.ready:
            count = self._clients(worker)
            log.error("%s (pid %d) is gone: %s; its %d clients connect again", worker.name, pid, end, count)
        else:
            log.error("%s (pid %d) could not start: %s", worker.name, pid, end)

    def _clients(self, worker: Worker) -> int:
        row = self._table.of(worker.child.pid)
        return row.tunnels if row else 0
