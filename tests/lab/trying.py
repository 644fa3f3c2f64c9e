"""What a client says on a path, in this process: the log, its status, and what ``etherws status`` shows of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import gevent
import pytest
from gevent.event import Event

from etherws.cli.operate.status_details import client_lines
from etherws.client import dial
from etherws.client.attempt import RemoteServer
from etherws.client.credentials import Credentials
from etherws.client.link_state import WAITING
from etherws.client.observed import ObservedClient
from etherws.client.proxy_choice import ProxyChoice
from etherws.client.reconnect import Client
from etherws.client.uris import split_uri
from etherws.counters import Values
from etherws.kernel.netns import Namespace
from etherws.settings import ClientSettings, Retry, Trust
from tests.lab.hosts import PATIENCE

#: Seconds for each step that must succeed.
STEP = 10.0


class Said:
    """What a client has said of its link."""

    def __init__(self, status: Values, lines: Sequence[str]) -> None:
        self.status, self.lines = status, lines
        self.shown = "\n".join(client_lines(status))

    def names(self, *words: str) -> None:
        """The status, what is shown of it, and one line of the log have all of these words."""
        error = str(self.status["link"]["last_error"])
        assert all(word in error for word in words), f"the status has {error!r}"
        assert all(word in self.shown for word in words), f"shown is {self.shown}"
        self.logs(*words)

    def warns(self, *words: str) -> None:
        """One of the warnings in the status has all of these words, as have what is shown and one line of the log."""
        assert any(all(word in each for word in words) for each in self.status["warnings"]), self.status["warnings"]
        assert all(word in self.shown for word in words), f"shown is {self.shown}"
        self.logs(*words)

    def logs(self, *words: str) -> None:
        """One line of the log has all of these words."""
        assert any(all(word in line for word in words) for line in self.lines), f"the log has {self.lines}"


def tried(
    uri: str,
    namespace: Namespace,
    *,
    trust: Trust | None = None,
    choice: ProxyChoice | None = None,
    timeout: float = STEP,
    token: str | None = None,
    settings: ClientSettings | None = None,
    when: Callable[[Client], Any] = lambda client: client.link.state == WAITING,
    addresses: Sequence[Any] | None = None,
) -> Said:
    """What a client says on the machine of that namespace, as soon as `when` holds of it: by default, when it waits
    before its second attempt. `addresses`, in getaddrinfo()'s form, are those of the server's name."""
    parsed, user, password = split_uri(uri)
    server = RemoteServer(
        parsed,
        settings or ClientSettings(),
        proxy_choice=choice or ProxyChoice(),
        trust=trust or Trust(),
        credentials=Credentials(user, password, token=token),
        timeout=timeout,
    )
    client, stop, lines = Client([server], settings or ClientSettings(), Retry(30.0, 30.0)), Event(), _Lines()

    def ready(text: str, status: int = 0, extra: Mapping[str, object] = MappingProxyType({})) -> None:
        """As cli/process/daemon.py has it."""
        logging.getLogger("etherws").log(logging.INFO, "%s", text, extra=dict(extra))

    logger = logging.getLogger("etherws")
    level = logger.level
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    try:
        with namespace.inside(), pytest.MonkeyPatch.context() as patch:
            # They are this process's, for good.
            patch.setattr(gevent, "signal_handler", lambda *_: None)
            if addresses is not None:
                patch.setattr(dial, "look_up", lambda *_: list(addresses))
            running = gevent.spawn(client.run, ready, stop)
            with gevent.Timeout(PATIENCE):
                while not when(client) and not running.ready():
                    gevent.sleep(0.002)
            assert not running.ready(), f"it ended by {running.exception!r}"
            observed = ObservedClient(client)
            status = {**observed.overview(), "sessions": list(observed.sessions()), "parked": []}
            stop.set()
            running.get(timeout=PATIENCE)
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
    return Said(status, lines.texts)


class _Lines(logging.Handler):
    """The texts of records."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
