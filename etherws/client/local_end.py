"""The client's side of this machine: its TAP, the filters of --drop, and what watches them and the network.

All of it is there from the start of the client to its end, whatever the connections do. Read next: far_lan.py,
tunnel/interface.py, kernel/link_claim.py, kernel/loop_watch.py, kernel/network_monitor.py.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable

from etherws.client.far_lan import FarLan
from etherws.errors import DeviceError
from etherws.kernel import network_monitor
from etherws.kernel.link_claim import LinkClaim
from etherws.kernel.loop_watch import LoopWatch
from etherws.settings import ClientSettings
from etherws.tunnel.filtered_sink import FilteredSink
from etherws.tunnel.interface import Interface
from etherws.tunnel.tap import Tap


class LocalEnd:
    """The interface of the client, ready for sessions."""

    def __init__(
        self,
        settings: ClientSettings,
        targets: Iterable[str],
        local_address: Callable[[], str],
        on_change: Callable[[bool], None],
    ) -> None:
        """`targets` are the servers, as RemoteServer.target names them. The rest is as in network_monitor.watch():
        `local_address` is the connection's, `on_change` is called when this machine's network has changed.

        Raises AlreadyLinked if another client links the same bridge to one of them; DeviceError if the TAP or its
        filters cannot be made.
        """
        self._dropped = Counter[str]()
        with contextlib.ExitStack() as undo:
            self._claim = LinkClaim()
            undo.callback(self._claim.close)
            self._claim.claim(settings.bridge, settings.device, targets, second=settings.allow_second_link)
            self._far_lan = FarLan(settings.guards)
            self._interface = Interface(settings)
            undo.callback(self._interface.close)
            undo.callback(self._far_lan.close)
            loops = LoopWatch(lambda: {self.tap.index: ""})
            loops.start()
            undo.callback(loops.close)
            undo.callback(network_monitor.watch(self._name_here, local_address, on_change).close)
            self._far_lan.guard(self.tap)
            self._undo = undo.pop_all()

    @property
    def tap(self) -> Tap:
        """The present one: it is another after the TAP was deleted."""
        return self._interface.tap

    def sink(self) -> Tap | FilteredSink:
        """Where a new session puts what comes from the far LAN."""
        self._dropped = Counter[str]()
        return self._far_lan.sink(self.tap)

    def drops(self) -> Counter[str]:
        """How many frames the filters have dropped since the session began, by reason."""
        self._dropped += self._far_lan.drops()
        return self._dropped

    def restore(self) -> None:
        """After a session: have the TAP there again, with its filters. Raises DeviceError if that fails."""
        self._far_lan.guard(self._interface.check())

    def leave(self) -> None:
        """No session will follow: another client may link the bridge."""
        self._claim.leave()

    def close(self) -> None:
        """Remove the interface and its filters. Raises DeviceError."""
        self._undo.close()

    def _name_here(self) -> str:
        """The interface's present name; empty while it is in another network namespace, where the name is of others."""
        try:
            return self.tap.name if self.tap.locate() else ""
        except DeviceError:
            return ""
