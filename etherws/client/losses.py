"""What may have cut a connection that was lost without a word: what is between, by when it was cut.

Pure. A proxy or a firewall that cuts says nothing, but it does so right after the 101, or always after the same time
without a byte. Read next: reconnect.py, the caller; network_errors.py, for what fails before the 101.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from etherws.errors import ConnectionClosed, EtherwsError
from etherws.tunnel.stream import CONNECTION_LOST

#: Seconds after the 101 within which an end without a Close is that of something which does not carry WebSockets.
RIGHT_AFTER = 2.0

#: Seconds without a byte from the server that are worth a word. Shorter ones are usual.
SILENCE = 5.0

#: Two silences are the same if they differ by this part at most: a proxy's clock is exact to a second or so.
SAME = 0.2


class Losses:
    """How the connections have ended, one after the other."""

    def __init__(self, ping_interval: float, clock: Callable[[], float] = monotonic) -> None:
        """`ping_interval` is in seconds, 0 for no pings. `clock` returns seconds."""
        self._interval, self._clock = ping_interval, clock
        # When the newest loss was; how long nothing had come before it, and before the loss before that.
        self._at, self._newest, self._last = -SILENCE, 0.0, 0.0

    def words(self, reason: EtherwsError, age: float, silence: float) -> str:
        """What is to be said behind the reason, from its comma or semicolon on; empty if there is nothing to say. The
        connection was there for `age` seconds, and nothing had come for the last `silence` of them."""
        now = self._clock()
        if now - self._at >= SILENCE:
            # Several connections that end at the same moment are one loss: that says nothing of a fixed time.
            self._last, self._newest = self._newest, 0.0
        self._at = now
        if not isinstance(reason, ConnectionClosed) or not str(reason).startswith(CONNECTION_LOST):
            return ""
        if age < RIGHT_AFTER:
            return (
                ", right after the 101; does a proxy or a firewall between let the upgrade pass, and not what follows?"
                " wss:// hides it from most; 'etherws check' says more"
            )
        if silence < SILENCE:
            return ""
        self._newest = silence
        text = f", {silence:.0f} s after the last byte from there"
        if self._interval and silence > self._interval:
            # A ping was sent meanwhile, so it was not idle.
            return text
        again = self._last > 0 and abs(silence - self._last) <= SAME * self._last
        if again or not self._interval:
            less = f"{max(1, int(silence / 2))}s"
            text += (
                f"{', as the last time' if again else ''}; does a proxy or a firewall between cut what is idle? a"
                f" shorter --ping-interval, such as {less}, keeps it open"
            )
        return text
