"""Control sockets of servers that are none, in a thread of their own: for commands that ask by blocking calls."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent

from etherws.monitoring import Monitoring
from etherws.observe.events import Events
from etherws.observe.serve import Observation
from etherws.observe.subject import Subject
from tests.lab.hosts import PATIENCE


class _Loop:
    """An event loop in a thread, while somebody needs it. There is one: what is observed has turns of one process."""

    def __init__(self) -> None:
        self._todo: list[Callable[[], object]] = []
        self._users = 0
        self._thread = threading.Thread()

    def begin(self) -> None:
        """Somebody needs it from now on."""
        self._users += 1
        if self._users == 1:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Somebody needs it no longer."""
        self._users -= 1
        if not self._users:
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()

    def call(self, work: Callable[[], object]) -> None:
        """Call this in the thread, and wait for it."""
        done = threading.Event()

        def run() -> None:
            work()
            done.set()

        self._todo.append(run)
        assert done.wait(PATIENCE)

    def _run(self) -> None:
        while self._users:
            while self._todo:
                self._todo.pop(0)()
            gevent.sleep(0.005)
        # What the connections have left can only be closed by this loop.
        gc.collect()
        gevent.get_hub().destroy()


_loop = _Loop()


class Fake:
    """A process with a control socket."""

    def __init__(
        self, path: Path, subject: Subject, monitor: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        """`clock` gives seconds since 1970: one process comes after another."""
        self.events = Events(clock=clock)
        settings = Monitoring(control=str(path), monitor=monitor)
        self._observation = Observation(subject, self.events, settings, subject.role, "ethws0")
        _loop.begin()
        _loop.call(self._observation.open)
        _loop.call(self._observation.start)

    def add(self, kind: str, text: str, level: str = "info", **fields: object) -> None:
        """Have an event happen."""
        values = {"time": 5.0, "level": level, "kind": kind, "text": text, **fields}
        _loop.call(lambda: self.events.add(values))

    def close(self) -> None:
        """End."""
        _loop.call(self._observation.close)
        _loop.end()


@contextlib.contextmanager
def fake(path: Path, subject: Subject, monitor: str | None = None) -> Iterator[Fake]:
    """One for the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Fake(path, subject, monitor)) as found:
        yield found


@contextlib.contextmanager
def foreign(path: Path, talk: Callable[[socket.socket], object]) -> Iterator[None]:
    """Something that listens there and is not etherws: `talk` has each connection."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.settimeout(PATIENCE)
                with connection, contextlib.suppress(OSError):
                    talk(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)
