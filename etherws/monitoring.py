"""What the user can configure of what is shown: the control socket, --monitor, and who may read there.

Pure: no sockets, no files. server and client have these options in common. Read next: settings.py, whose settings have
these; observe/serve.py, which opens the doors.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass

from etherws.addresses import authority
from etherws.errors import SettingsError
from etherws.file_names import absolute

#: Bytes of a UNIX socket's path: sun_path of sys/un.h has 108, with the zero byte at the end (unix(7)).
SOCKET_PATH_MAX = 107

#: How --monitor names all addresses of the machine.
ALL = "*"

#: ADDRESS:PORT or [ADDRESS]:PORT. A name has what DNS allows, and an underscore.
_MONITOR = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[^\]\s]+)?)\]|(?P<host>[A-Za-z0-9._-]+|\*)):(?P<port>[0-9]{1,5})"
)


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """`control` is the file of the control socket: None is the usual one, "" none. `monitor` is where status, metrics
    and the page are served over TCP: ADDRESS:PORT, [ADDRESS]:PORT, or a port alone, which is of 127.0.0.1; None is
    nowhere. `monitor_token_file` has the tokens by which programs may read there, one a line. With `monitor_clients`
    each client of a server has metrics of its own."""

    control: str | None = None
    monitor: str | None = None
    monitor_token_file: str | None = None
    monitor_clients: bool = False

    def __post_init__(self) -> None:
        # The way around `frozen` that dataclasses itself takes.
        if self.control:
            object.__setattr__(self, "control", absolute("--control", self.control))
            check_socket_path("--control", self.control)
        if self.monitor is not None:
            object.__setattr__(self, "monitor", authority(*listen_address("--monitor", self.monitor)))
        if self.monitor_token_file:
            if self.monitor is None:
                raise SettingsError("--monitor-token-file needs --monitor: the control socket asks for no token")
            path = absolute("--monitor-token-file", self.monitor_token_file)
            object.__setattr__(self, "monitor_token_file", path)


def check_socket_path(what: str, path: str) -> None:
    """Raise SettingsError, beginning with `what`, if a UNIX socket cannot have this path."""
    if (size := len(os.fsencode(path))) > SOCKET_PATH_MAX:
        raise SettingsError(
            f"{what} {path}: the path of a UNIX socket has at most {SOCKET_PATH_MAX} bytes, and this one has {size};"
            " choose a shorter one"
        )


def listen_address(option: str, text: str) -> tuple[str, int]:
    """The address or name, and the port, of a text as `Monitoring.monitor` has it. `option` begins the message of
    SettingsError."""
    full = f"127.0.0.1:{text}" if re.fullmatch("[0-9]{1,5}", text) else text
    found = _MONITOR.fullmatch(full)
    if not found or int(found["port"]) > 65535:
        raise SettingsError(
            f"{option} {text!r} is not ADDRESS:PORT; write 127.0.0.1:9402, [::1]:9402, or 9402 alone for this machine"
        )
    host = found["six"] or found["host"]
    # A number of the wrong form would be looked up as a name, in vain.
    if found["six"] or re.fullmatch(r"[0-9.]+", host):
        try:
            ipaddress.ip_address(host)
        except ValueError as exc:
            raise SettingsError(f"{option} {text!r}: {exc}") from None
    return host, int(found["port"])
