"""The process: in the background or in the foreground, its signals, and its message to systemd.

A start in the background returns to the user only when the daemon is ready, or has failed; if the user ends the start
before that, the daemon ends as well. What runs in the process is a function that cli/commands.py passes in. Read next:
inherited.py, what a caller leaves behind; pid_file.py; log_writer.py.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, Protocol

import gevent
from gevent.event import Event

from etherws import __version__
from etherws.cli.process import inherited, log_writer
from etherws.cli.process.handover import Handover, let_signals_through
from etherws.cli.process.pid_file import pid_file
from etherws.cli.process.process_image import ProcessImage
from etherws.errors import DaemonError, EtherwsError
from etherws.file_names import make_variables_absolute
from etherws.kernel import packet_sockets, service_manager
from etherws.log_limit import log_unexpected_errors

log = logging.getLogger(__name__)

#: Signals that end the process in order. SIGQUIT's own way is a core dump, which would have the secrets in memory.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Ready(Protocol):
    """What the service calls when its start is over, and again when that has become better."""

    def __call__(self, message: str, status: int = 0, extra: Mapping[str, object] = MappingProxyType({}), /) -> None:
        """`message` is for the user. `status` is not 0 if the service runs, but does not work yet: the exit status of
        the start. `extra` is what its record in the log is about (events.py)."""


#: What runs in the process: a function of `ready` and of `stop`, an event after which it returns.
Service = Callable[[Ready, Event], None]


class Started(NamedTuple):
    """A process that runs in the background: what it said at its start, the exit status of the start, and its ID."""

    message: str
    status: int
    pid: int


def is_supervised() -> bool:
    """Whether something watches this process, so that it must stay in the foreground: systemd (sd_notify(3)), or a
    container, in which it is PID 1."""
    return bool(os.environ.get("NOTIFY_SOCKET")) or os.getpid() == 1


def run_in_foreground(
    service: Service, image: ProcessImage, pidfile: str | None = None, log_format: str = "text"
) -> None:
    """Run the service in this process until it returns. Raises what it raises."""

    def ready(message: str, status: int = 0, extra: Mapping[str, object] = MappingProxyType({})) -> None:
        _tell_of_takeover(image)
        log.log(logging.WARNING if status else logging.INFO, "%s", message, extra=dict(extra))
        # systemctl status shows it.
        service_manager.notify(*([] if status else ["READY=1"]), f"STATUS={message.splitlines()[0]}")

    log_writer.log_to_standard_error(log_format)
    log_unexpected_errors()
    try:
        if interval := service_manager.watchdog_interval():
            gevent.spawn(_feed_watchdog, interval)
        stop = Event()
        handover = Handover(image, stop, background=False)
        handover.started = True
        _run_images(service, ready, stop, handover, pidfile)
    finally:
        # What is printed next comes behind it.
        log_writer.flush()


def leave(status: int) -> NoReturn:
    """End the process at once. What Python does otherwise at its end takes a tenth of a second, in which the process
    that comes after this one is not started yet."""
    packet_sockets.close()
    log_writer.flush()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _run_images(service: Service, ready: Ready, stop: Event, handover: Handover, pidfile: str | None) -> None:
    """Run the service until `stop` is set for the end of this process, which may execute new images before that."""
    _handle_signals(handover)
    with pid_file(pidfile, handover.image.take_pid_file()) as file:
        while True:
            service(ready, stop)
            if not handover.wanted:
                return
            # If this returns, there is no other image: the service begins again.
            handover.execute(file)


def _tell_of_takeover(image: ProcessImage) -> None:
    """Log, once, that this image has taken over from another one."""
    if image.before:
        log.info("handed over to version %s (was %s)", __version__, image.before)
    image.before = ""


def run_in_background(
    service: Service, image: ProcessImage, pidfile: str | None = None, log_format: str = "text"
) -> Started:
    """Run the service in a process of its own; return what it says as soon as it is ready. If an image before this one
    did that, the process is there already, and this function does not return.

    Raises DaemonError with the error if it fails before that. In the new process this function does not return.
    """
    make_variables_absolute(os.environ)
    if image.background:
        _run_daemon(service, image, pidfile, None, log_format)
    ours, daemons = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        # A session of its own, and not as its leader: so the process can never get a controlling terminal (setsid(2)).
        os.setsid()
        if os.fork() == 0:
            _run_daemon(service, image, pidfile, daemons, log_format)
        os._exit(0)
    daemons.close()
    os.waitpid(child, 0)
    # If this process is ended here, the daemon sees the end of the connection, and ends.
    with ours, ours.makefile("r", encoding="utf-8") as report:
        text = report.read()
    if not text:
        raise DaemonError("the process in the background ended during its start")
    found = json.loads(text)
    if found["pid"] is None:
        failed = DaemonError(found["message"])
        failed.exit_status = found["status"]
        raise failed
    return Started(**found)


class _Starter:
    """The process that waits for this one to be ready, until it was told."""

    def __init__(self, connection: socket.socket, stop: Event) -> None:
        """`stop` is set if the starter ends before."""
        self._connection, self._stop = connection, stop
        self._watcher: Any = gevent.get_hub().loop.io(connection.fileno(), 1)
        self._watcher.start(self._ended)

    def tell(self, message: str, status: int, pid: int | None) -> None:
        """Say what has become of the start; `pid` is None if this process ends. After that the starter may end."""
        self._watcher.stop()
        self._watcher.close()
        with self._connection, contextlib.suppress(OSError):
            self._connection.sendall(json.dumps({"message": message, "status": status, "pid": pid}).encode())

    def _ended(self) -> None:
        self._watcher.stop()
        log.error("the command that started this process was ended before its time; so this process ends, too")
        self._stop.set()


def _run_daemon(
    service: Service, image: ProcessImage, pidfile: str | None, connection: socket.socket | None, log_format: str
) -> NoReturn:
    """All that the daemon does; ends the process. `connection` is to the starter; None if that has ended before. The
    lines that the starter's terminal shows are text, whatever `log_format` is: somebody reads them."""
    status = 0
    starter: _Starter | None = None

    def ready(message: str, status: int = 0, extra: Mapping[str, object] = MappingProxyType({})) -> None:
        nonlocal starter
        _tell_of_takeover(image)
        if starter is None:
            log.info("%s", message, extra=dict(extra))
            return
        log_writer.flush()
        logging.getLogger().removeHandler(to_standard_error)
        # A program that reads the output of the start until its end must not wait for the daemon.
        inherited.close_standard_descriptors()
        log.log(logging.WARNING if status else logging.INFO, "%s", message, extra=dict(extra))
        starter.tell(message, status, os.getpid())
        starter = None
        handover.started = True

    try:
        inherited.leave_caller(again=connection is None)
        # If the log's way out fails, logging must not print tracebacks to the user's terminal.
        logging.raiseExceptions = False
        stop = Event()
        handover = Handover(image, stop, background=True)
        handover.started = connection is None
        if connection is not None:
            to_standard_error = log_writer.log_to_standard_error()
            starter = _Starter(connection, stop)
        log_writer.log_to_syslog(log_format)
        log_unexpected_errors()
        _run_images(service, ready, stop, handover, pidfile)
    except EtherwsError as exc:
        status = exc.exit_status
        if starter is None:
            log.error("%s", exc)
        else:
            starter.tell(str(exc), status, None)
    except BaseException:
        status = 1
        log.exception("unexpected error; please report it")
    finally:
        leave(status)


def _handle_signals(handover: Handover) -> None:
    """Have the signals end the process that are there for that. Others that would end it in silence do not any more;
    the service may have its own use for them."""

    def end(number: int) -> None:
        service_manager.notify("STOPPING=1")
        handover.end(number)

    for number in STOP_SIGNALS:
        gevent.signal_handler(number, end, number)
    gevent.signal_handler(signal.SIGUSR2, handover.request)
    # The service sets up what SIGUSR1 does.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if handover.image.before:
        # From here on SIGHUP is the service's, too.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        let_signals_through()


def _feed_watchdog(interval: float) -> None:
    """Tell systemd each `interval` seconds that the event loop still runs. Otherwise systemd starts the unit again."""
    while True:
        service_manager.notify("WATCHDOG=1")
        gevent.sleep(interval)
