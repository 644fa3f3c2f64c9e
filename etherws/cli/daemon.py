"""The process: in the background or in front, its PID file, its signals, and its word to systemd.

A background start is over for the user only once the daemon says that it is ready, or why it is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import logging.handlers
import os
import signal
import socket
from collections.abc import Callable, Iterator

import gevent
from gevent.event import Event

from etherws.errors import DaemonError, EtherwsError

log = logging.getLogger(__name__)

#: Where syslog listens (syslog(3)); there is none in most containers.
SYSLOG = "/dev/log"

Main = Callable[[Callable[[str], None], Event], None]


def stays_in_front() -> bool:
    """Whether whoever started this process watches it: systemd (sd_notify(3)), or a container as its PID 1."""
    return bool(os.environ.get("NOTIFY_SOCKET")) or os.getpid() == 1


def in_front(main: Main, pidfile: str | None = None) -> None:
    """Run `main` here until it returns. Raises what it raises."""

    def ready(message: str) -> None:
        log.info("%s", message)
        _notify("READY=1")

    with _pid_in(pidfile):
        main(ready, _stop_event())


def in_background(main: Main, pidfile: str | None = None) -> str:
    """Run `main` in a process of its own; return the message with which it declared itself ready.

    Raises DaemonError with what it failed of before that. In the daemon itself, this does not return.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        # A session of its own, and not its leader: no terminal can ever take hold of it (setsid(2)).
        os.setsid()
        if os.fork() == 0:
            _daemon(main, os.path.abspath(pidfile) if pidfile else None, writing)
        os._exit(0)
    os.close(writing)
    os.waitpid(child, 0)
    with os.fdopen(reading, encoding="utf-8") as report:
        status, message = report.read(3), report.read()
    if status != "000":
        failed = DaemonError(message or "the process in the background died at its start")
        failed.exit_status = int(status or 1)
        raise failed
    return message


def _daemon(main: Main, pidfile: str | None, report: int) -> None:
    """The daemon's whole life; ends the process."""
    status = 0
    waiting = True

    def answer(status: int, message: str) -> None:
        nonlocal waiting
        os.write(report, f"{status:03}{message}".encode())
        os.close(report)
        waiting = False

    def ready(message: str) -> None:
        # Whoever reads our output to its end is not to wait for ours.
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.close(null)
        os.chdir("/")
        log.info("%s", message)
        answer(0, message)

    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _log_to_syslog()
        with _pid_in(pidfile):
            main(ready, _stop_event())
    except EtherwsError as exc:
        status = exc.exit_status
        if waiting:
            answer(status, str(exc))
        else:
            log.error("%s", exc)
    except BaseException:
        status = 1
        log.exception("this should not have happened")
    finally:
        os._exit(status)


def _log_to_syslog() -> None:
    # What cannot be logged because syslog has gone is no reason for a traceback in the user's terminal.
    logging.raiseExceptions = False
    # The socket may be there and nobody behind it; since Python 3.11 that shows only here.
    with contextlib.suppress(OSError):
        handler = logging.handlers.SysLogHandler(SYSLOG)
        getattr(handler, "createSocket", lambda: None)()
        handler.setFormatter(logging.Formatter(f"etherws[{os.getpid()}]: %(message)s"))
        logging.getLogger().addHandler(handler)


def _stop_event() -> Event:
    """An event that SIGTERM and SIGINT set."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop.set)
    return stop


@contextlib.contextmanager
def _pid_in(path: str | None) -> Iterator[None]:
    """Keep this process's number in the file `path`, locked, for as long as it runs."""
    if path is None:
        yield
        return
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise DaemonError(f"cannot write --pidfile {path}: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            other = os.read(file, 20).decode(errors="replace").strip()
            raise DaemonError(f"--pidfile {path} belongs to process {other}, which runs; stop that first") from exc
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
    finally:
        os.close(file)


def _notify(state: str) -> None:
    """Tell systemd, if it listens (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        # A leading @ stands for the zero byte of an abstract address (unix(7)).
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
