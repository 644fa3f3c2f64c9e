"""What a tunnel needs of the ports, whichever process has them.

With one process they are Ports and Port: ports.py, port.py. In a worker they are RemotePorts and RemotePort
(workers/remote_ports.py), and another process has the ports themselves. Users: tunnels.py, review.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from etherws.access.policy import Profile
from etherws.errors import EtherwsError
from etherws.features import Membership
from etherws.server.port import ClientKey, State
from etherws.server.presence import UNKNOWN, Presence
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.session import Session, Sink
from etherws.tunnel.tap import Tap


class Drops(Protocol):
    """What filters a port."""

    def drops(self) -> dict[str, int]:
        """How many of the client's frames were dropped, by reason."""


class PortApi(Protocol):
    """One port, as port.py: Port; or what one connection of a link has of it, as members.py: Member."""

    @property
    def state(self) -> State:
        """What it is."""

    @property
    def since(self) -> float:
        """Since when, by monotonic()."""

    @property
    def membership(self) -> Membership | None:
        """Which connection of the client's link it is for, with as many as the link may have; None without a link."""

    @property
    def joining(self) -> bool:
        """Whether the link was there before this connection: its session leaves the TAP as it is."""

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

    def began(self, retire: Callable[[], None]) -> None:
        """The session on it is about to carry frames: if another connection had this number in the link, that one is
        retired. `retire` does it to this one, when its turn comes (Session.retire())."""

    def left(self, session: Session, reason: EtherwsError) -> None:
        """The session on it has ended, for this reason: have that recorded, as comings.py does."""

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
        self,
        client: ClientKey,
        profile: Profile,
        evict: Callable[[], None],
        presence: Presence = UNKNOWN,
        membership: Membership | None = None,
    ) -> PortApi:
        """As Ports.take(). Raises NoPort or DeviceError, with a hint, ClientGone, and Refused."""

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


def link_of(port: PortApi) -> object:
    """The same object, or an equal one, for all connections of a client that count once."""
    return (port.client, port.membership.id) if port.membership else port
