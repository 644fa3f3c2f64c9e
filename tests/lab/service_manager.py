"""A stand-in for systemd: a program that runs a service, keeps its descriptors, and starts it again when it ends.

    python -m tests.lab.service_manager [--watchdog SECONDS] COMMAND ...

It speaks what etherws/kernel/service_manager.py says: sd_notify(3) with FDSTORE, FDSTOREREMOVE and FDNAME, and
sd_listen_fds(3). It prints ``started PID``, ``ready PID`` and ``ended PID STATUS``. To end the service in order or by a
crash, send it a signal: it is started again at once. SIGTERM for this program ends both, the service by SIGINT as the
units in contrib/ do at a stop for good, and closes what was kept.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import tempfile
import time
from pathlib import Path

#: How many descriptors are kept, as FileDescriptorStoreMax= of the unit says.
STORE_MAX = 4096

#: Where descriptors are put in the child before they get their numbers.
ASIDE = 5000


class ServiceManager:
    """One service."""

    def __init__(self, command: list[str], watchdog: float | None, folder: Path) -> None:
        self._command, self._watchdog = command, watchdog
        self._path = folder / "notify"
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(self._path))
        self._sock.setblocking(False)
        #: Names and descriptors, in their order.
        self.kept: list[tuple[str, int]] = []
        self._fed = 0.0
        self.pid = self._pidfd = -1

    def run(self, stop: int) -> None:
        """Run the service, again and again, until the descriptor `stop` can be read."""
        while True:
            self._start()
            stopping = self._watch(stop)
            if stopping:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGINT)
                # It is heard to its end: with nobody who reads, each word of its would take it a second.
                self._watch(self._pidfd)
            _, status = os.waitpid(self.pid, 0)
            _say(f"ended {self.pid} {os.waitstatus_to_exitcode(status)}")
            os.close(self._pidfd)
            # What it said at last.
            self._hear()
            if stopping:
                return

    def _start(self) -> None:
        self._fed = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._become_service()
            finally:
                os._exit(203)
        self._pidfd = os.pidfd_open(self.pid)
        _say(f"started {self.pid}")

    def _become_service(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        env = dict(os.environ, NOTIFY_SOCKET=str(self._path), FDSTORE=str(STORE_MAX))
        if self._watchdog:
            env.update(WATCHDOG_USEC=str(int(self._watchdog * 1e6)), WATCHDOG_PID=str(os.getpid()))
        if self.kept:
            env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(self.kept)))
            env["LISTEN_FDNAMES"] = ":".join(name for name, _ in self.kept)
        # First out of the way: they may have each other's numbers.
        for number, (_, fd) in enumerate(self.kept):
            os.dup2(fd, ASIDE + number)
        for number in range(len(self.kept)):
            os.dup2(ASIDE + number, 3 + number)
        os.closerange(3 + len(self.kept), ASIDE + STORE_MAX)
        os.execvpe(self._command[0], self._command, env)

    def _watch(self, stop: int) -> bool:
        """Listen to the service until it ends; return whether this program is to stop before that."""
        while True:
            ready = select.select([self._sock.fileno(), self._pidfd, stop], [], [], 0.1)[0]
            self._hear()
            if self._pidfd in ready:
                return False
            if stop in ready:
                return True
            if self._watchdog and time.monotonic() - self._fed > self._watchdog:
                _say(f"watchdog {self.pid}")
                os.kill(self.pid, signal.SIGABRT)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                text, fds, _, _ = socket.recv_fds(self._sock, 4096, 253)
                self._obey(dict(line.partition("=")[::2] for line in text.decode().splitlines()), fds)

    def _obey(self, said: dict[str, str], fds: list[int]) -> None:
        name = said.get("FDNAME", "stored")
        if "FDSTORE" in said:
            self.kept += [(name, fd) for fd in fds]
            while len(self.kept) > STORE_MAX:
                os.close(self.kept.pop()[1])
        if "FDSTOREREMOVE" in said:
            for one in [one for one in self.kept if one[0] == name]:
                self.kept.remove(one)
                os.close(one[1])
        if "WATCHDOG" in said:
            self._fed = time.monotonic()
        if "READY" in said:
            _say(f"ready {self.pid}")


def _say(text: str) -> None:
    """Print a line in one piece: the service writes to the same place, and print() would write the words one by one."""
    os.write(1, f"{text}\n".encode())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--watchdog", type=float)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    # A descriptor for the signal, so that one that comes between two waits is not missed.
    stop, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    with tempfile.TemporaryDirectory() as folder:
        ServiceManager(options.command, options.watchdog, Path(folder)).run(stop)


if __name__ == "__main__":
    main()
