"""What is shown of a server under gunicorn: the port process has its ports, and so its control socket and --monitor.

``etherws stop`` ends gunicorn itself, as SIGTERM to its master does. ``etherws reload`` has all workers read their
files of passwords, tokens and rules again; no tunnel ends for that, as at gunicorn's own reload (HUP). Read next:
server/observed.py, workers/workers_status.py; observe/serve.py, which has the doors.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from etherws.errors import EtherwsError
from etherws.observe.events import Events
from etherws.observe.serve import Observation
from etherws.server.observed import About, ObservedServer
from etherws.settings import ServerSettings
from etherws.workers.messages import Message
from etherws.workers.port_server import PortServer
from etherws.workers.told_events import record_of
from etherws.workers.worker_link import WorkerLink
from etherws.workers.workers_status import WorkersStatus

log = logging.getLogger(__name__)


class ObservedPorts:
    """From the first worker to the end of the ports."""

    def __init__(self, server: PortServer, settings: ServerSettings, listen: str, stop: Callable[[], object]) -> None:
        """`listen` is where gunicorn listens, as a URI; `stop` ends it."""
        self._events = Events()
        self._logger = logging.getLogger("etherws")
        self._logger.addHandler(self._events)
        server.on_event = self._hear
        about = About(server.ports.name, listen, server.reload, stop)
        self.subject = ObservedServer(server.ports, WorkersStatus(server), about)
        self._observation = Observation(self.subject, self._events, settings, self.subject.role, server.ports.name)
        try:
            self._observation.open(needed=False)
            self._observation.start()
        except EtherwsError as exc:
            log.error("%s; all else goes on", exc)

    def close(self) -> None:
        """Show nothing any more."""
        self._observation.close()
        self._logger.removeHandler(self._events)

    def _hear(self, link: WorkerLink, message: Message) -> None:
        """A worker tells of an event: it has logged that itself. Raises ChannelError."""
        record = record_of(message, __name__)
        record.msg = f"{link.label}: {record.msg}"
        self._events.handle(record)
