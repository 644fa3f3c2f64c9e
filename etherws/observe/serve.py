"""The two doors of the application: the control socket, and --monitor. They are opened while there are privileges.

Without its control socket etherws runs on, and the log says why. Read next: control_socket.py, access.py,
application.py, http.py.
"""

from __future__ import annotations

import ipaddress
import logging
import socket

from gevent.socket import socket as GeventSocket

from etherws.addresses import authority
from etherws.errors import ListenError
from etherws.monitoring import ALL, Monitoring, listen_address
from etherws.observe.access import Access, ControlAccess, MonitorAccess
from etherws.observe.application import Monitor, Streams
from etherws.observe.control_socket import ControlSocket, usual_path
from etherws.observe.events import Events
from etherws.observe.http import Server
from etherws.observe.kept_logins import KeptLogins
from etherws.observe.logins import Logins, read_tokens
from etherws.observe.stream import LivePage
from etherws.observe.subject import Subject
from etherws.reloadable import Reloadable
from etherws.server.listen import listen_on, listen_on_all
from etherws.server.taken_port import listening_program

log = logging.getLogger(__name__)

#: Seconds that answers have to end when all ends: who reads them can ask again.
STOP_TIMEOUT = 0.1


class Observation:
    """What is shown of one process."""

    def __init__(
        self,
        subject: Subject,
        events: Events,
        settings: Monitoring,
        role: str,
        device: str,
        owner: tuple[int, int] | None = None,
        kept: KeptLogins | None = None,
    ) -> None:
        """`device` is the first interface's name, by which the control socket is called. `owner` is the user and group
        that this process will run as, if it is root and that is another one. `kept` are the logins that outlive it."""
        self._subject, self._events, self._settings = subject, events, settings
        self._role, self._device, self._owner = role, device, owner
        self._kept = kept
        self._control: ControlSocket | None = None
        self._monitor: GeventSocket | None = None
        self._live = LivePage(subject, events)
        #: Answers without end at both doors.
        self.streams = Streams()
        self.servers: list[Server] = []

    @property
    def path(self) -> str:
        """The control socket's file; empty if there is none."""
        return self._control.path if self._control else ""

    @property
    def address(self) -> str:
        """HOST:PORT of the page, as this machine can reach it; empty if there is none."""
        if self._monitor is None:
            return ""
        host, port = listen_address("--monitor", self._settings.monitor or "")[0], self._monitor.getsockname()[1]
        host = host if host not in (ALL, "0.0.0.0") else "127.0.0.1"
        return authority(host if host != "::" else "::1", port)

    def open(self, *, needed: bool = True) -> None:
        """Open the sockets: before privileges go. Raises ListenError if --monitor cannot be listened on; unless it is
        `needed`, the log says so instead."""
        path = usual_path(self._role, self._device) if self._settings.control is None else self._settings.control
        try:
            if path:
                self._control = ControlSocket(path, self._owner)
        except ListenError as exc:
            log.warning("there is no control socket, and all else goes on: %s", exc)
        try:
            if self._settings.monitor is not None:
                self._monitor = _listen(self._settings.monitor)
        except ListenError as exc:
            if needed:
                raise
            log.error("%s; all else goes on", exc)

    def start(self) -> None:
        """Answer from now on. Raises CredentialsError."""
        if self._control is None and self._monitor is None:
            return
        self._live.start()
        monitor: Access | None = None
        if self._monitor is not None:
            file = self._settings.monitor_token_file
            tokens = Reloadable(lambda: read_tokens(file), [file]) if file else None
            host, port = listen_address("--monitor", self._settings.monitor or "")[0], self._monitor.getsockname()[1]
            monitor = MonitorAccess(self.address, [host], Logins(f"etherws-{port}", tokens, self._kept))
            self._serve(self._monitor, monitor)
            if warning := _exposure(self._monitor):
                log.warning("%s", warning)
        if self._control is not None:
            self._serve(self._control.listener, ControlAccess(monitor))

    def close(self) -> None:
        """End all, and remove the control socket. May be called again."""
        for server in self.servers:
            server.close()
        if self._control is not None:
            self._control.close()
        if self._monitor is not None:
            self._monitor.close()
        self._live.close()
        for server in self.servers:
            server.stop(timeout=STOP_TIMEOUT)
        self.servers, self._control, self._monitor = [], None, None

    def _serve(self, listener: GeventSocket, access: Access) -> None:
        clients = self._settings.monitor_clients
        application = Monitor(self._subject, self._events, access, self._live, self.streams, clients=clients)
        server = Server(listener, application)
        server.start()
        self.servers.append(server)


def _listen(text: str) -> GeventSocket:
    """A listening socket for --monitor. Raises ListenError."""
    host, port = listen_address("--monitor", text)
    try:
        sock = listen_on_all(port) if host == ALL else listen_on(host, port)
    except (OSError, UnicodeError) as exc:
        # Python puts the address behind the reason of some errors, in a form of its own.
        reason = str(getattr(exc, "strerror", None) or exc).partition(" (while attempting")[0]
        hint = "name an address of this machine"
        if isinstance(exc, PermissionError):
            hint = "choose a port above 1023"
        elif isinstance(exc, OSError) and "in use" in reason:
            program = listening_program("" if host == ALL else socket.gethostbyname(host), port)
            reason, hint = f"port {port} is taken{program}", "choose another port"
        raise ListenError(f"cannot listen on --monitor {text}: {reason}; {hint}") from exc
    sock.setblocking(False)
    return GeventSocket(fileno=sock.detach())


def _exposure(sock: GeventSocket) -> str:
    """A warning if other machines can reach --monitor; empty if none can."""
    host = sock.getsockname()[0].partition("%")[0]
    if ipaddress.ip_address(host).is_loopback:
        return ""
    port = sock.getsockname()[1]
    return (
        f"--monitor {authority(host, port)} is without TLS: anyone on the path can read what is shown, and take over a"
        f" login. Listen on --monitor {port}, and reach it by: ssh -L {port}:127.0.0.1:{port} HOST, or by a reverse"
        " proxy with TLS; see docs/monitoring.rst"
    )
