"""What the two commands show of themselves: joins server and client with observe/, which neither of them knows.

Read next: observe/serve.py, which has the doors; commands.py, which uses this.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from gevent.event import Event

from etherws.cli.process.daemon import Ready, Service
from etherws.cli.process.process_image import ProcessImage
from etherws.cli.user_option import User
from etherws.observe.events import Events
from etherws.observe.kept_logins import KeptLogins
from etherws.observe.logins import read_tokens
from etherws.observe.serve import Observation
from etherws.observe.subject import Subject
from etherws.settings import DeviceSettings

log = logging.getLogger("etherws")


class Observing:
    """What is shown of this process, from its start to its end."""

    def __init__(self, settings: DeviceSettings, run_as: User | None, image: ProcessImage) -> None:
        """Raises CredentialsError if the tokens for --monitor cannot be read."""
        if settings.monitor_token_file:
            read_tokens(settings.monitor_token_file)
        self._settings, self._image = settings, image
        self._owner = (run_as.user, run_as.group) if run_as else None
        self._events = Events()
        log.addHandler(self._events)
        self._observation: Observation | None = None
        self._kept: KeptLogins | None = None

    def around(self, service: Service) -> Service:
        """What runs the service, and keeps who is logged in for the next image of the process."""

        def run(ready: Ready, stop: Event) -> None:
            self._kept = KeptLogins(self._image.store)
            with contextlib.closing(self._kept):
                if self._kept.cookies:
                    self._kept.save(self._kept.cookies)
                service(ready, stop)

        return run

    @contextlib.contextmanager
    def doors(self, subject: Subject) -> Iterator[None]:
        """In the block there are the control socket and --monitor, as far as they can be had. Raises ListenError,
        CredentialsError."""
        device = subject.overview()["device"]
        observation = Observation(subject, self._events, self._settings, subject.role, device, self._owner, self._kept)
        with contextlib.closing(observation):
            # Sessions would be lost if an image that takes over did not start.
            observation.open(needed=not self._image.before)
            self._observation = observation
            yield
        self._observation = None

    def start(self) -> None:
        """Answer from now on, in a block of doors()."""
        if self._observation is not None:
            self._observation.start()

    def before(self, ready: Ready) -> Ready:
        """What does as `ready`, but calls start() the first time."""
        started = False

        def call(*args: Any) -> None:
            nonlocal started
            if not started:
                self.start()
                started = True
            ready(*args)

        return call
