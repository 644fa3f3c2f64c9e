"""The checks of a worker's clients: another process says which may begin, and counts them.

The same verbs as server/checks.py. Read next: lent_checks.py, the other side; remote_ports.py.
"""

from __future__ import annotations

import contextlib

from etherws.errors import ChannelError, DeviceError, NoPort
from etherws.server.port import ClientKey
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.shared_rates import Rates
from etherws.workers.channel import Answer, Channel
from etherws.workers.messages import client_values, number
from etherws.workers.remote_port import CALL_TIMEOUT


class RemoteChecks:
    """As Checks."""

    def __init__(self, channel: Channel, rates: Rates) -> None:
        self._channel, self._rates = channel, rates

    def begin(self, kind: str, identity: str | None, address: str) -> RemoteCheck:
        """As Checks.begin(). Raises NoPort if the other process does not answer."""
        values = {**client_values(ClientKey(identity, None, address)), "kind": kind}
        try:
            answer = self._channel.call("check", values, CALL_TIMEOUT, self._late)
            full = bool(number(answer.values, "full"))
            return RemoteCheck(self._channel, number(answer.values, "check"), self._rates, full)
        except ChannelError as exc:
            raise NoPort(str(exc)) from exc

    def _late(self, answer: Answer) -> None:
        """Nobody waits for it any more."""
        with contextlib.suppress(ChannelError):
            self._channel.tell("check_over", {"check": number(answer.values, "check")})


class RemoteCheck:
    """As Check."""

    def __init__(self, channel: Channel, number: int, rates: Rates, full: bool) -> None:
        """`number` is its name between the processes."""
        self.full = full
        self._channel, self._number, self._rates = channel, number, rates

    def pacer(self, rate: int) -> Pacer:
        """As Check.pacer(). Raises DeviceError."""
        try:
            answer = self._channel.call("check_slot", {"check": self._number}, CALL_TIMEOUT)
            return self._rates.pacer(number(answer.values, "slot"), rate)
        except (ChannelError, NoPort, ValueError) as exc:
            raise DeviceError(f"the rate of this client is not known: {exc}") from exc

    def end(self) -> None:
        """As Check.end()."""
        self._channel.tell("check_over", {"check": self._number})
