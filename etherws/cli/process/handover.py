"""SIGUSR2: the process executes a new image of itself, such as a new version, and keeps its TAPs and its process ID.

In this order: a rehearsal of the new image (rehearsal.py), while all sessions go on; then the service stops, and leaves
what is in the store as it is; then the new image is executed. If the rehearsal fails, nothing has happened; if the
new image cannot be executed, the service starts again in this one. daemon.py runs the service, and calls execute().
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import threading

import gevent
from gevent.event import Event

from etherws import __version__
from etherws.cli.process import log_writer
from etherws.cli.process.process_image import PACKET_SOCKETS, PID_FILE, REHEARSAL, STATE, ProcessImage
from etherws.cli.process.rehearsal import rehearse
from etherws.errors import DaemonError
from etherws.kernel import packet_sockets, service_manager

log = logging.getLogger(__name__)

#: Signals whose usual action would end a new image until it has its own: they wait for it. SIGHUP and the SIGUSRs ask
#: for what a new image does anyhow.
_BLOCKED = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}

#: Seconds in which the event loop hears of a signal that came before.
HEAR = 0.01

#: Variables that must not reach the rehearsal: it is no service.
_SERVICE = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE")


class Handover:
    """The next image of this process."""

    def __init__(self, image: ProcessImage, stop: Event, *, background: bool) -> None:
        """`stop` has the service return."""
        self.image = image
        self._stop, self._background = stop, background
        #: Whether the start is over, and its caller knows the result.
        self.started = False
        self._command: list[str] | None = None
        self._rehearsing = False
        #: The signal that came while the service stopped for the new image: it is for that one.
        self._late: int | None = None

    @property
    def wanted(self) -> bool:
        """Whether the service stops, or has stopped, for a new image."""
        return self._command is not None

    def end(self, number: int) -> None:
        """A signal came that ends this process. SIGINT ends it for good: systemd, too, is to keep nothing of it."""
        if self.wanted:
            self._late = number
        elif not self._stop.is_set():
            self.image.store.ending = number == signal.SIGINT
            self._stop.set()

    def request(self) -> None:
        """SIGUSR2 came."""
        if self._rehearsing or self.wanted:
            log.info("SIGUSR2 is ignored: a new image is about to take over already")
            return
        if not self.started:
            log.warning("SIGUSR2 is ignored: the start is not over yet; send it again later")
            return
        self._rehearsing = True
        try:
            command = self.image.next_command()
            version = self._rehearse(command)
        except (DaemonError, OSError, ValueError) as exc:
            log.error("no new image takes over, and this one goes on: %s", exc)
            return
        finally:
            self._rehearsing = False
        if self._stop.is_set():
            return
        log.info("handing over to version %s (%s); this is %s", version, " ".join(command), __version__)
        service_manager.reloading()
        self._command = command
        self.image.store.handing_over = True
        self._stop.set()

    def _rehearse(self, command: list[str]) -> str:
        """The version of the new image. Raises DaemonError, OSError or ValueError."""
        environ = {name: value for name, value in os.environ.items() if name not in _SERVICE}
        self.image.before_rehearsal()
        with contextlib.closing(self.image.state(background=self._background, rehearsal=True)) as state:
            descriptors = self.image.store.tell(environ, {STATE: [state.fd]})
            first, *rest = self.image.visible
            return rehearse([*command, first, REHEARSAL, *rest], self._folder(), environ, descriptors)

    def _folder(self) -> str:
        return self.image.folder if os.path.isdir(self.image.folder) else "/"

    def execute(self, pid_file: int | None) -> None:
        """The service has stopped: execute the new image, which gets the open PID file, too. If that is impossible, log
        why, and return: the service can begin again."""
        assert self._command is not None
        command, folder = [*self._command, *self.image.visible], os.getcwd()
        environ = dict(os.environ)
        own = {PID_FILE: [] if pid_file is None else [pid_file], PACKET_SOCKETS: packet_sockets.descriptors()}
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            with contextlib.closing(self.image.state(background=self._background, rehearsal=False)) as state:
                self.image.store.hand_over(environ, {**own, STATE: [state.fd]})
                os.chdir(self._folder())
                log_writer.flush()
                # Another thread may have got a signal before: the event loop hears of it.
                gevent.sleep(HEAR)
                if self._late is not None:
                    # For this thread: it is the one that is left.
                    signal.pthread_kill(threading.get_ident(), self._late)
                os.execve(command[0], command, environ)
        except (OSError, ValueError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else exc
            log.error("cannot execute %s: %s; this image goes on", command[0], reason)
        os.chdir(folder)
        for descriptor in itertools.chain(*own.values()):
            os.set_inheritable(descriptor, False)
        self.image.store.take_back()
        self._command = None
        self._stop.clear()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def let_signals_through() -> None:
    """This image has its own actions for all signals: those that came since the last one stopped count now."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
