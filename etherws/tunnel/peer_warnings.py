"""What a peer sends that the user should know of, though it breaks no rule: text, and frames of a larger MTU.

Each is logged once per connection, and LogLimit keeps many connections from filling the log. Nothing is dropped here.
Read next: connection.py, which counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from etherws.kernel.interfaces import FRAMING
from etherws.log_limit import LogLimit
from etherws.tunnel.wire import Buffer

_log_limit = LogLimit(logging.getLogger(__name__))


class PeerWarnings:
    """What was logged about one peer. `name` is its name in the log."""

    def __init__(self, name: str, mtu: Callable[[], int | None] | None) -> None:
        """`mtu` returns that of the interface here at this moment, in bytes; without it frames are not looked at: a
        peer of version 2 tells its own MTU."""
        self._name, self._mtu, self._text = name, mtu, False
        # The longest frame that is no reason to ask for the MTU again.
        self._usual = 0

    def text(self) -> None:
        """A text message has come."""
        if not self._text:
            self._text = True
            _log_limit.log(
                logging.WARNING,
                "text",
                "%s sends text messages, which are no Ethernet and are dropped; is it another kind of tunnel?",
                self._name,
            )

    def frames(self, frames: Sequence[Buffer]) -> None:
        """Frames have come, each a message; there may be none."""
        if self._mtu is None or not frames or (longest := max(map(len, frames))) <= self._usual:
            return
        # The user may have changed it meanwhile.
        mtu = self._mtu()
        self._usual = mtu + FRAMING if mtu else longest
        if longest > self._usual:
            self._mtu = None
            _log_limit.log(
                logging.WARNING,
                "large frames",
                "%s sends frames of %d bytes, but the MTU here is %d: the MTUs differ. Larger frames can be lost"
                " without an error; give both ends the lower one by --mtu",
                self._name,
                longest,
                mtu,
            )
