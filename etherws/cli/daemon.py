"""The process: in the background or in the foreground, its PID file, its signals, and its message to systemd.

A start in the background returns to the user only when the daemon is ready, or has failed. What runs in the process is
a function that commands.py passes in.
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

#: syslog's socket (syslog(3)); most containers have none.
SYSLOG = "/dev/log"

#: What runs in the process: a function of `ready`, which it calls with a message as soon as it works, and of `stop`, an
#: event after which it returns.
Service = Callable[[Callable[[str], None], Event], None]


def is_supervised() -> bool:
    """Whether something watches this process, so that it must stay in the foreground: systemd (sd_notify(3)), or a
    container, in which it is PID 1."""
    return bool(os.environ.get("NOTIFY_SOCKET")) or os.getpid() == 1


def run_in_foreground(service: Service, pidfile: str | None = None) -> None:
    """Run the service in this process until it returns. Raises what it raises."""

    def ready(message: str) -> None:
        log.info("%s", message)
        _notify_systemd("READY=1")

    with _pid_file(pidfile):
        service(ready, _stop_event())


def run_in_background(service: Service, pidfile: str | None = None) -> str:
    """Run the service in a process of its own; return its message as soon as it is ready.

    Raises DaemonError with the error if it fails before that. In the new process this function does not return.
    """
    report_reader, report_writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(report_reader)
        # A session of its own, and not as its leader: so the process can never get a controlling terminal (setsid(2)).
        os.setsid()
        if os.fork() == 0:
            _run_daemon(service, os.path.abspath(pidfile) if pidfile else None, report_writer)
        os._exit(0)
    os.close(report_writer)
    os.waitpid(child, 0)
    with os.fdopen(report_reader, encoding="utf-8") as report:
        status, message = report.read(3), report.read()
    if status != "000":
        failed = DaemonError(message or "the process in the background ended during its start")
        failed.exit_status = int(status or 1)
        raise failed
    return message


def _run_daemon(service: Service, pidfile: str | None, report_pipe: int) -> None:
    """All that the daemon does; ends the process. The parent waits for a report: three digits of exit status, and a
    message."""
    status = 0
    reported = False

    def report(status: int, message: str) -> None:
        nonlocal reported
        os.write(report_pipe, f"{status:03}{message}".encode())
        os.close(report_pipe)
        reported = True

    def ready(message: str) -> None:
        # A program that reads the output of the start until its end must not wait for the daemon.
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.close(null)
        os.chdir("/")
        log.info("%s", message)
        report(0, message)

    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _log_to_syslog()
        with _pid_file(pidfile):
            service(ready, _stop_event())
    except EtherwsError as exc:
        status = exc.exit_status
        if reported:
            log.error("%s", exc)
        else:
            report(status, str(exc))
    except BaseException:
        status = 1
        log.exception("unexpected error; please report it")
    finally:
        os._exit(status)


def _log_to_syslog() -> None:
    # If syslog ends, logging must not print tracebacks to the user's terminal.
    logging.raiseExceptions = False
    # The socket may exist without a listener; since Python 3.11 only createSocket() reports that.
    with contextlib.suppress(OSError):
        handler = logging.handlers.SysLogHandler(SYSLOG)
        getattr(handler, "createSocket", lambda: None)()
        handler.setFormatter(logging.Formatter(f"etherws[{os.getpid()}]: %(message)s"))
        logging.getLogger().addHandler(handler)


def _stop_event() -> Event:
    """An event that is set by SIGTERM and SIGINT."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop.set)
    return stop


@contextlib.contextmanager
def _pid_file(path: str | None) -> Iterator[None]:
    """Keep this process's ID in a locked file while the block runs. Raises DaemonError if another process has it."""
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
            raise DaemonError(
                f"--pidfile {path} belongs to process {other}, which still runs; stop that first"
            ) from exc
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
    finally:
        os.close(file)


def _notify_systemd(state: str) -> None:
    """Send systemd a state, if it started this process with Type=notify (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        # A leading @ means the zero byte of an abstract address (unix(7)).
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
