"""One port that another process has lent to this worker: what server/tunnels.py and server/review.py use of a port.

Its TAP is a descriptor of this process; its rules and its owner are in the other one. Read next: remote_ports.py.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Any

import gevent

from etherws.access.policy import Profile
from etherws.errors import ChannelError, DeviceError, EtherwsError
from etherws.features import Membership
from etherws.server import comings
from etherws.server.comings import Parting
from etherws.server.port import ClientKey, State
from etherws.server.ports import PARKED_MAX
from etherws.tunnel.filtered_sink import FilteredSink
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.session import Session
from etherws.tunnel.shared_rates import Rates
from etherws.tunnel.tap import Tap
from etherws.workers.channel import Channel
from etherws.workers.messages import Message, number

#: Seconds in which the other process answers. To put rules in takes the kernel 20 ms, and a thousand clients at once
#: wait for each other; their peers wait for ten seconds.
CALL_TIMEOUT = 10.0


class RemotePort:
    """As server/port.py: Port, as far as a worker needs it."""

    def __init__(
        self,
        channel: Channel,
        number: int,
        tap: Tap,
        client: ClientKey,
        profile: Profile,
        evict: Callable[[], None],
        rates: Rates,
    ) -> None:
        """In use. `number` is its name between the processes."""
        self._channel, self._rates = channel, rates
        self.number, self.tap, self.client, self.profile = number, tap, client, profile
        self.evict = evict
        self.filter = RemoteFilter(self)
        self.state, self.since = State.IN_USE, monotonic()
        #: Where the debt of the owner's rate is; None as long as nobody has asked.
        self.slot: int | None = None
        #: As PortApi: which connection of a link has it, and whether others were there before.
        self.membership: Membership | None = None
        self.joining = False
        self._retire: Callable[[], None] = lambda: None
        self._failure: EtherwsError | None = None
        self._on_failure: Callable[[EtherwsError], None] | None = None

    def become(self, state: State) -> None:
        """Change the state, as this process knows it."""
        self.state, self.since, self._on_failure = state, monotonic(), None

    def ask(self, verb: str, values: Message) -> Message:
        """What the other process answers about this port. Raises DeviceError."""
        try:
            return self._channel.call(verb, {"port": self.number, **values}, CALL_TIMEOUT).values
        except ChannelError as exc:
            raise DeviceError(f"{self.tap.name}: {exc}") from exc

    def pacer(self, rate: int) -> Pacer:
        """As Port.pacer(). Raises DeviceError."""
        if self.slot is None:
            self.slot = number(self.ask("slot", {}), "slot")
        return self._rates.pacer(self.slot, rate)

    def on_failure(self, call: Callable[[EtherwsError], None]) -> None:
        """As Port.on_failure()."""
        self._on_failure = call
        if self._failure is not None:
            call(self._failure)

    def fail(self, reason: EtherwsError) -> None:
        """The session cannot go on."""
        self._failure = reason
        if self._on_failure is not None:
            self._on_failure(reason)

    def began(self, retire: Callable[[], None]) -> None:
        """As PortApi.began()."""
        self._retire = retire
        if self.membership is not None:
            self._channel.tell("began", {"port": self.number})

    def left(self, session: Session, reason: EtherwsError) -> None:
        """As PortApi.left(). The end of a link is recorded where all its connections are known."""
        if self.membership is None:
            comings.left(self.client, self.tap.present_name(), session, reason, self.filter.drops())
        else:
            self._channel.tell("left", {"port": self.number, **Parting.of(session, reason).to_values()})

    def retire(self) -> None:
        """Another connection of the link has taken its place."""
        # Not in the greenlet that reads.
        gevent.spawn(self._retire)

    def sink(self) -> FilteredSink:
        """As Port.sink()."""
        return FilteredSink(self.tap, self.filter)


class Parked:
    """The ports that a worker has given back to be parked, as long as they may be. A client that comes and goes again
    and again leaves one each time, so only the latest are known."""

    def __init__(self, timeout: float) -> None:
        """After `timeout` seconds the other process removes a port, or has given it to another client."""
        self._timeout = timeout
        self._timers: dict[RemotePort, gevent.Greenlet[..., None]] = {}

    def add(self, port: RemotePort) -> None:
        """The port is parked now."""
        self._timers[port] = gevent.spawn_later(self._timeout, self._over, port)
        if len(self._timers) > PARKED_MAX:
            oldest = next(iter(self._timers))
            self.discard(oldest)
            oldest.become(State.FREE)

    def discard(self, port: RemotePort) -> None:
        """The port is not parked any more."""
        if (timer := self._timers.pop(port, None)) is not None:
            timer.kill(block=False)

    def _over(self, port: RemotePort) -> None:
        self._timers.pop(port, None)
        port.become(State.FREE)


class RemoteFilter:
    """The rules of a port, which the other process keeps in force."""

    def __init__(self, port: RemotePort) -> None:
        self._port = port
        self._hold: Callable[[], None] | None = None
        # How often the rules were lost.
        self._losses = 0

    def arm(self, source: bytes = b"", hold: Callable[[], None] | None = None) -> None:
        """As PortFilter.arm()."""
        self._hold, before = hold, -1
        # They may be lost again while the answer is on its way.
        while before != self._losses:
            before = self._losses
            self._port.ask("arm", {"source": source.hex()})

    def held(self) -> None:
        """The rules are not in force, or about to be others: no frame may pass before the next arm()."""
        self._losses += 1
        if self._hold is not None:
            self._hold()

    def drops(self) -> dict[str, int]:
        """As PortFilter.drops()."""
        try:
            found: Any = self._port.ask("drops", {}).get("drops")
        except EtherwsError:
            return {}
        return found if isinstance(found, dict) else {}
