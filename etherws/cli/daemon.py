"""The process: in the background or in the foreground, its signals, and its message to systemd.

A start in the background returns to the user only when the daemon is ready, or has failed. What runs in the process is
a function that commands.py passes in. Read next: pid_file.py; log_writer.py.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Callable

import gevent
from gevent.event import Event

from etherws.cli import log_writer
from etherws.cli.pid_file import pid_file
from etherws.errors import DaemonError, EtherwsError

log = logging.getLogger(__name__)

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

    log_writer.log_to_standard_error()
    log_writer.log_unexpected_errors()
    try:
        with pid_file(pidfile):
            service(ready, _stop_event())
    finally:
        # What is printed next comes behind it.
        log_writer.flush()


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
        log_writer.flush()
        logging.getLogger().removeHandler(to_standard_error)
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
        # If the log's way out fails, logging must not print tracebacks to the user's terminal.
        logging.raiseExceptions = False
        to_standard_error = log_writer.log_to_standard_error()
        log_writer.log_to_syslog()
        log_writer.log_unexpected_errors()
        with pid_file(pidfile):
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
        log_writer.flush()
        os._exit(status)


def _stop_event() -> Event:
    """An event that is set by SIGTERM and SIGINT."""
    stop = Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        gevent.signal_handler(number, stop.set)
    return stop


def _notify_systemd(state: str) -> None:
    """Send systemd a state, if it started this process with Type=notify (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address:
        # A leading @ means the zero byte of an abstract address (unix(7)).
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
