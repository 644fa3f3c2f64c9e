"""What a worker is told at its start: one JSON message on its channel, before all others.

So no secret and no file name is on a command line, and the worker has exactly the settings that its parent has checked.
Pure. Users: parent.py, which sends it, and worker_process.py.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from etherws.settings import ServerSettings

#: Bytes of the message: names of files and networks; a socket takes 200 KB at once.
SIZE_MAX = 64 * 1024


@dataclass(frozen=True)
class StartMessage:
    """`number` is the worker's; `tls` are the files of certificate, key and client authorities; `log_level` is
    logging's."""

    number: int
    settings: ServerSettings
    tls: tuple[str, str, str | None] | None = None
    log_level: int = 20

    def encode(self) -> bytes:
        """The message. Raises ValueError if it is too long."""
        data = json.dumps(asdict(self)).encode()
        if len(data) > SIZE_MAX:
            raise ValueError(f"the settings are too long for a worker: {len(data)} bytes")
        return data


def settings_of(values: dict[str, Any]) -> ServerSettings:
    """The settings that asdict() and JSON have made values of. Raises SettingsError, and TypeError for other names."""
    given: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in values.items()}
    return ServerSettings(**given)


def decode(data: bytes) -> StartMessage:
    """The start message that was sent. Raises ValueError or SettingsError."""
    try:
        values = json.loads(data)
        tls = values["tls"] and tuple(values["tls"])
        return StartMessage(values["number"], settings_of(values["settings"]), tls, values["log_level"])
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"this is no start message for a worker: {exc!r}") from exc
