"""The process that stays root's while etherws runs as another user (--run-as): it makes staged copies of root's files.

It knows which files from before the change of the user, and has CAP_DAC_READ_SEARCH alone. It can only be told to look
now; it looks once a second by itself. When etherws ends, in whatever way, it removes the copies, and what etherws may
not remove: the PID file and the UNIX socket. It uses no event loop: the one that it inherits is its parent's. Read
next: staged_copies.py, run_as.py.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import select
import signal
import socket
import stat
import tempfile
import warnings
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event

from etherws.cli.process import inherited
from etherws.cli.process.staged_copies import StagedCopies
from etherws.kernel import privileges

log = logging.getLogger(__name__)

#: Seconds between two looks, as in server/review.py.
INTERVAL = 1.0

#: Seconds that etherws waits for a look: files lie on disks, which may be slow.
ANSWER_TIMEOUT = 5.0

#: Bytes of an answer, and how many problems are in one.
ANSWER_MAX, PROBLEMS_MAX = 65_536, 50

#: Where the next image of etherws finds the helper: the number of the connection's descriptor.
VARIABLE = "ETHERWS_HELPER"


#: The name of a folder of copies: the PID of etherws, and what mkdtemp() adds.
_FOLDER = re.compile("etherws-([0-9]+)-[a-z0-9_]{8}")


class Task(NamedTuple):
    """What the helper does: the files to copy, for which user; and the files to remove at the end."""

    names: Sequence[str]
    user: int
    group: int
    pidfile: str | None = None
    unix_socket: str | None = None


class PrivilegedHelper:
    """The helper, as etherws sees it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._answered = Event()
        connection.setblocking(False)
        # The next image of etherws goes on with it.
        os.set_inheritable(connection.fileno(), True)
        os.environ[VARIABLE] = str(connection.fileno())
        gevent.spawn(self._read)

    def look(self) -> None:
        """Have it look at the files, and wait until the copies are as the files are now."""
        self._answered.clear()
        with contextlib.suppress(OSError):
            self._connection.send(b"look")
            if not self._answered.wait(ANSWER_TIMEOUT):
                log.warning("the files are not copied yet, after %g s; is their disk slow?", ANSWER_TIMEOUT)

    def _read(self) -> None:
        """Log what it says, until it ends."""
        while True:
            gevent_socket.wait_read(self._connection.fileno())
            try:
                data = self._connection.recv(ANSWER_MAX)
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                log.error("the process that copies root's files has ended; changed files are not read any more")
                self._answered.set()
                return
            for problem in json.loads(data):
                log.warning("%s", problem)
            self._answered.set()


def start(task: Task) -> tuple[PrivilegedHelper, str, list[str]]:
    """Start the helper; return it, the folder of its copies, and what could not be copied. Raises OSError."""
    where = "/run" if os.access("/run", os.W_OK) else None
    if where:
        _remove_copies_of_the_dead(where)
    folder = tempfile.mkdtemp(prefix=f"etherws-{os.getpid()}-", dir=where)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with warnings.catch_warnings():
        # Python warns of threads whose locks the child might wait for. It logs nothing, and uses no thread.
        warnings.simplefilter("ignore")
        parent, child = os.getpid(), os.fork()
    if child == 0:
        _run(its, task, folder, parent)
    its.close()
    ours.settimeout(ANSWER_TIMEOUT)
    problems = json.loads(ours.recv(ANSWER_MAX) or b'["the process that copies files could not start"]')
    return PrivilegedHelper(ours), folder, problems


def _remove_copies_of_the_dead(where: str) -> None:
    """Remove what is left of processes that were killed together with their helpers: the copies have secrets. `where`
    is a folder of root's."""
    for name in os.listdir(where):
        found = _FOLDER.fullmatch(name)
        if found and not os.path.exists(f"/proc/{found[1]}"):
            with contextlib.suppress(OSError):
                StagedCopies(os.path.join(where, name), (), 0, 0).remove()


def adopt() -> PrivilegedHelper | None:
    """The helper of the image before this one; None if there is none."""
    number = os.environ.get(VARIABLE, "")
    try:
        if number.isdecimal() and stat.S_ISSOCK(os.fstat(int(number)).st_mode):
            return PrivilegedHelper(socket.socket(fileno=int(number)))
    except OSError:
        pass
    return None


def _run(connection: socket.socket, task: Task, folder: str, parent: int) -> NoReturn:
    """All that the helper does."""
    status = 1
    try:
        # It ends with its parent, not before: also if the whole group of processes gets a signal.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        _keep_open(connection.fileno())
        copies = StagedCopies(folder, task.names, task.user, task.group)
        socket_file = _identity(task.unix_socket)
        # Without CAP_CHOWN, a file can be given to a group that one is in.
        os.setgroups([task.group])
        privileges.keep_only([privileges.CAP_DAC_READ_SEARCH])
        _serve(connection, copies)
        copies.remove()
        _remove_pid_file(task.pidfile, parent)
        if socket_file and _identity(task.unix_socket) == socket_file:
            os.unlink(task.unix_socket or "")
        status = 0
    finally:
        # Nothing of the parent's is run at the end: no handler, no flush.
        os._exit(status)


def _serve(connection: socket.socket, copies: StagedCopies) -> None:
    """Copy files until the other end is closed."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    problems, asked = copies.update(), True
    while True:
        if asked or problems:
            connection.send(json.dumps([text[:1000] for text in problems[:PROBLEMS_MAX]]).encode())
        asked = bool(poll.poll(INTERVAL * 1000))
        if asked and not connection.recv(64):
            return
        problems = copies.update()


def _keep_open(descriptor: int) -> None:
    """Close all descriptors but this one: a TAP that is open here would outlive its process."""
    inherited.close_standard_descriptors()
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, os.sysconf("SC_OPEN_MAX"))


def _identity(path: str | None) -> tuple[int, int] | None:
    """What tells a file from the next one of its name; None if there is none."""
    try:
        found = os.lstat(path) if path else None
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found else None


def _remove_pid_file(path: str | None, process: int) -> None:
    """Remove the PID file, unless it is another process's by now."""
    with contextlib.suppress(OSError):
        if path:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                if stat.S_ISREG(os.fstat(file).st_mode) and os.read(file, 32).strip() == str(process).encode():
                    os.unlink(path)
            finally:
                os.close(file)
