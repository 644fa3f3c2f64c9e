"""What a tunnel needs of the ports, whichever process has them.

With one process they are Ports and Port: ports.py, port.py. In a worker they are RemotePorts and RemotePort
(workers/remote_ports.py), and another process has the ports themselves. Users: tunnels.py, review.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from etherws.access.policy import Profile
from etherws.errors import EtherwsError
from etherws.server.port import ClientKey, State
from etherws.server.presence import UNKNOWN, Presence
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.session import Sink
from etherws.tunnel.tap import Tap


class Drops(Protocol):
    """What filters a port."""

    def drops(self) -> dict[str, int]:
        """How many of the client's frames were dropped, by reason."""


class PortApi(Protocol):
    """One port, as port.py: Port."""

    #: What it is, and since when, by monotonic().
    state: State
    since: float

    @property
    def tap(self) -> Tap:
        """Where the session's frames go."""

    @property
    def filter(self) -> Drops:
        """What filters it."""

    @property
    def client(self) -> ClientKey:
        """Who has it."""

    @property
    def profile(self) -> Profile:
        """By which rules."""

    def pacer(self, rate: int) -> Pacer:
        """As Port.pacer(). Raises DeviceError."""

    def on_failure(self, call: Callable[[EtherwsError], None]) -> None:
        """As Port.on_failure(): `call` ends the client's session."""

    def sink(self) -> Sink:
        """Where a session puts what the client sends. One for each session."""


class CheckApi(Protocol):
    """A check, as checks.py: Check."""

    #: Whether its client would get no port for a tunnel now.
    full: bool

    def pacer(self, rate: int) -> Pacer:
        """As Check.pacer(). Raises DeviceError."""

    def end(self) -> None:
        """As Check.end()."""


class ChecksApi(Protocol):
    """All checks, as checks.py: Checks."""

    def begin(self, kind: str, identity: str | None, address: str) -> CheckApi:
        """As Checks.begin(). Raises Refused, and NoPort if the process that has the ports does not answer."""


class PortsApi(Protocol):
    """All of them, as ports.py: Ports."""

    @property
    def name(self) -> str:
        """The name of the first port's interface."""

    @property
    def checks(self) -> ChecksApi:
        """Who may check the path, which needs no port."""

    def take(
        self, client: ClientKey, profile: Profile, evict: Callable[[], None], presence: Presence = UNKNOWN
    ) -> PortApi:
        """As Ports.take(). Raises NoPort or DeviceError, with a hint, and ClientGone."""

    def apply(self, port: Any, profile: Profile) -> None:
        """As Ports.apply(). Raises DeviceError."""

    def park(self, port: Any) -> None:
        """As Ports.park(). Raises DeviceError."""

    def free(self, port: Any) -> None:
        """As Ports.free(). Raises DeviceError."""

    def keep(self) -> None:
        """As Ports.keep()."""

    def hand_over(self) -> None:
        """As Ports.hand_over(): another process goes on with them."""

    def close(self) -> None:
        """This process needs them no more. Raises DeviceError."""
