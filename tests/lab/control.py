"""A control socket of a server that is none, in a thread: for commands that ask by blocking calls."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import gevent

from etherws.monitoring import Monitoring
from etherws.observe.events import Events
from etherws.observe.serve import Observation
from etherws.observe.subject import Subject
from tests.lab.hosts import PATIENCE


class Fake:
    """A process with a control socket. What is in `todo` is called in its thread."""

    def __init__(self, path: Path, subject: Subject, monitor: str | None = None) -> None:
        self.events = Events()
        self.todo: list[Callable[[], object]] = []
        self._over = threading.Event()
        begun = threading.Event()

        def run() -> None:
            settings = Monitoring(control=str(path), monitor=monitor)
            observation = Observation(subject, self.events, settings, subject.role, "ethws0")
            observation.open()
            observation.start()
            begun.set()
            while not self._over.is_set():
                while self.todo:
                    self.todo.pop(0)()
                gevent.sleep(0.005)
            observation.close()
            gevent.get_hub().destroy()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()
        assert begun.wait(PATIENCE)

    def add(self, kind: str, text: str, level: str = "info", **fields: object) -> None:
        """Have an event happen."""
        self.todo.append(lambda: self.events.add({"time": 5.0, "level": level, "kind": kind, "text": text, **fields}))

    def close(self) -> None:
        """End."""
        self._over.set()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def fake(path: Path, subject: Subject, monitor: str | None = None) -> Iterator[Fake]:
    """One for the block."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(Fake(path, subject, monitor)) as found:
        yield found


@contextlib.contextmanager
def foreign(path: Path, talk: Callable[[socket.socket], object]) -> Iterator[None]:
    """Something that listens there and is not etherws: `talk` has each connection. None in its place hangs."""
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
