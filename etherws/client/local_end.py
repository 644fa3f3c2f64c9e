"""The client's side of this machine: its TAP, the filters of --drop, and what watches them and the network.

All of it is there from the start of the client to its end, whatever the connections do. Read next: far_lan.py,
tunnel/interface.py, kernel/link_claim.py, kernel/loop_watch.py, kernel/network_monitor.py.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from etherws.client.far_lan import FarLan
from etherws.client.kept_port import KeptPort
from etherws.client.link_hooks import LinkHooks
from etherws.errors import DeviceError
from etherws.kernel import network_monitor
from etherws.kernel.announce import Announcer
from etherws.kernel.link_claim import LinkClaim
from etherws.kernel.loop_watch import LoopWatch
from etherws.kernel.store import Store
from etherws.settings import ClientSettings
from etherws.tunnel.filtered_sink import FilteredSink
from etherws.tunnel.interface import Interface
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)


class LocalEnd:
    """The interface of the client, ready for sessions."""

    def __init__(
        self,
        settings: ClientSettings,
        store: Store,
        tokens: Mapping[str, str],
        local_addresses: Callable[[], Iterable[str]],
        on_change: Callable[[bool], None],
    ) -> None:
        """`store` has what the last process left, if there was one. `tokens` are the servers, as RemoteServer.target
        names them, with their resume tokens; LocalEnd.tokens has those that count. The rest is as in
        network_monitor.watch():
        `local_addresses` are the connections', `on_change` is called when this machine's network has changed.

        Raises AlreadyLinked if another client links the same bridge to one of them; DeviceError if the TAP or its
        filters cannot be made; SettingsError if a program of --up, --down or --change cannot be run.
        """
        self._dropped = Counter[str]()
        self._settings, self._store = settings, store
        self._kept = KeptPort(store, settings)
        #: The programs of --up, --down and --change.
        self.hooks = LinkHooks(settings, up=self._kept.up)
        #: The same as before for the servers that the last process had, too.
        self.tokens = {target: self._kept.resume.get(target, token) for target, token in tokens.items()}
        with contextlib.ExitStack() as undo:
            self._claim = LinkClaim(store)
            undo.callback(self._claim.close)
            self._claim.claim(settings.bridge, settings.device, tokens, second=settings.allow_second_link)
            self._far_lan = FarLan(settings.guards, settings.vlan)
            several = settings.connections > 1
            kept = self._kept
            self._interface = Interface(settings, kept.tap, kept.was, multi_queue=several, given=kept.given)
            undo.callback(self._end)
            self._kept.place(self._interface)
            self._keep()
            for name in store.drop_rest():
                log.warning("what was kept as %s is not used: it is not a client's", name)
            self.loops = LoopWatch(lambda: {self.tap.index: ""}, f"the server ({' or '.join(tokens)})")
            self.loops.start()
            undo.callback(self.loops.close)
            self._announcer = Announcer()
            undo.callback(self._announcer.close)
            undo.callback(network_monitor.watch(self._name_here, local_addresses, on_change).close)
            self._far_lan.guard(self.tap)
            self._undo = undo.pop_all()

    @property
    def tap(self) -> Tap:
        """The present one: it is another after the TAP was deleted."""
        return self._interface.tap

    def sink(self) -> Tap | FilteredSink:
        """Where a new session puts what comes from the far LAN. That LAN is told what is behind the TAP."""
        self._dropped = Counter[str]()
        self.tap.stop_carrier_timeout()
        self._announcer.begin(self.tap.locate)
        self._interface.connecting()
        self._keep()
        return self._far_lan.sink(self.tap)

    def further_queue(self) -> tuple[Tap, Tap | FilteredSink]:
        """One more queue of the TAP, for a further session beside that of sink(), and where that session puts what
        comes from the far LAN. Raises DeviceError."""
        queue = self.tap.queue()
        return queue, self._far_lan.further_sink(queue)

    def drops(self) -> Counter[str]:
        """How many frames the filters have dropped since the session began, by reason."""
        self._dropped += self._far_lan.drops()
        return self._dropped

    def restore(self) -> None:
        """After a session: have the TAP there again, with its filters. Raises DeviceError if that fails."""
        self._far_lan.guard(self._interface.check())
        self._keep()

    def leave(self) -> None:
        """No session will follow: another client may link the bridge."""
        self._claim.leave()

    def close(self) -> None:
        """Remove the interface and its filters; unless another process goes on with them. Raises DeviceError."""
        self._undo.close()

    def _keep(self) -> None:
        """Have what there is now outlive this process."""
        self._kept.keep(self._interface, self.tokens, up=self.hooks.up)

    def _end(self) -> None:
        """The end, behind that of what watches."""
        if self._store.outlives:
            self._keep()
            self.hooks.finish()
            self._far_lan.leave()
            self._interface.hand_over()
        else:
            self.hooks.stop(self.tap.name)
            self._kept.drop()
            try:
                self._far_lan.close()
            finally:
                self._interface.close()

    def _name_here(self) -> str:
        """The interface's present name; empty while it is in another network namespace, where the name is of others."""
        try:
            return self.tap.name if self.tap.locate() else ""
        except DeviceError:
            return ""
