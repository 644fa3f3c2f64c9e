"""Makes the server's ports and closes them: a TAP in its bridge, with a filter, and somebody who watches both.

Ports that another process has made are used as they are. Which client gets which port, and when, is decided in
ports.py. Read next: kept_ports.py; tunnel/interface.py (the first port's TAP), kernel/bridges.py (which bridge a port
is in), kernel/kernel_filters.py (what its client may do).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

import gevent

from etherws.access.policy import Profile
from etherws.errors import DeviceError, NoPort, some_of
from etherws.events import PORT, event
from etherws.kernel import interfaces
from etherws.kernel.kept_filters import KeptFilter
from etherws.kernel.kernel_filters import KernelFilters
from etherws.kernel.loop_watch import LoopWatch
from etherws.kernel.membership import Was
from etherws.kernel.rules import Rules
from etherws.kernel.store import Store
from etherws.server.kept_ports import Found, KeptPorts, describe
from etherws.server.owners import Owners
from etherws.server.port import ClientKey, Origin, Port, State, rules_of
from etherws.server.port_hooks import PortHooks
from etherws.server.port_state import PortState
from etherws.settings import DeviceSettings
from etherws.tunnel import tap_removal
from etherws.tunnel.device_names import DeviceNames
from etherws.tunnel.interface import Interface, open_tap
from etherws.tunnel.tap import Tap

log = logging.getLogger(__name__)

#: How many interfaces a line of the log names.
NAMED = 5


class PortMaker:
    """What all ports of a server have in common: the settings, the bridges, and the kernel's filters."""

    def __init__(self, settings: DeviceSettings, store: Store) -> None:
        """Make the first port, `first`, unless the store has it. Raises DeviceError and SettingsError;
        then nothing new is left behind.

        `found` are the ports that the store has, with what is known of each: take_over() is to follow.
        """
        self._settings = settings
        self._hooks = PortHooks(settings)
        self._kept = KeptPorts(store, self._describe)
        self._names = DeviceNames()
        self._name_of: dict[Port, str] = {}
        found = [one for one in self._kept.found() if self._is_wanted(one)]
        first = found[0] if found and found[0].state.first else None
        if first is None:
            # The first port is there before it is known who gets it.
            self._interface = Interface(settings, multi_queue=True)
        else:
            was = self._bridge_before(first.state, self._origin(Profile()))
            self._interface = Interface(settings, first.tap, was, multi_queue=True, given=first.state.inet)
        self._bridges = self._interface.bridges
        self._kernel_filters = KernelFilters(self._bridges.links, {one.state.name for one in found})
        self._loops: LoopWatch | None = None
        self.found: list[tuple[Port, PortState]] = []
        self._bridges_made = {settings.bridge} if first else set()
        for one in found:
            if one is not first and not one.state.in_use:
                self._kept.refuse(one, "no client can come back for it, and it is not the first one")
            else:
                self._adopt(one, one is first)
        if first is None:
            self.first = self._port(self._interface.tap, self._origin(Profile()))
            self._kept.note(self.first)

    @property
    def name(self) -> str:
        """The name of the first port's interface."""
        return self._interface.tap.name

    def rules(self, profile: Profile) -> Rules:
        """What the kernel is to enforce for this profile. Raises DeviceError if it cannot."""
        return self._kernel_filters.possible(rules_of(profile))

    def watch_loops(self, clients: Callable[[], Mapping[int, str]]) -> LoopWatch:
        """Warn of loops through the ports. `clients` tells who has each, or had it last, by its interface's index."""
        self._loops = LoopWatch(clients)
        self._loops.start()
        return self._loops

    def is_only_port(self) -> bool:
        """Whether there can be no port but the first: nobody knows a bridge for another."""
        return not self._settings.bridge and not self._bridges.belongs(self.first.tap.index)

    def is_full(self, identity: str | None, address: str) -> bool:
        """Whether there is no port for a client of this identity and address, unless its policy names a bridge: the
        only one is another client's."""
        client = self.first.client
        same = client.identity == identity and (identity is not None or client.address == address)
        return self.first.state is State.IN_USE and self.is_only_port() and not same

    def new(self, profile: Profile, refusal: DeviceError | None = None, *, queues: bool = False) -> Port:
        """A further port; with `queues`, for a link of several connections. `refusal` is why the first port cannot be
        used, if so. Raises NoPort and DeviceError."""
        # Nothing is known of an interface in another network namespace.
        index = self._interface.tap.locate()
        origin = self._origin(profile)
        bridge = self._bridges.place(origin.bridge, index or 0)
        if bridge is None and origin.bridge:
            self._bridges.make(origin.bridge, autoconfigure=self._settings.accept_ra)
            bridge = self._bridges.place(origin.bridge, index or 0)
        if bridge is None:
            raise refusal or NoPort(
                f"{self.name} serves another client and is in no bridge; put it into one"
                f" ('ip link set {self.name} master br0') or start the server with --bridge"
            )
        pattern = origin.device
        if "%d" not in pattern and pattern in self._names:
            # Linux allows 15 bytes (IFNAMSIZ); up to 4 are for the number.
            pattern = pattern.rstrip("0123456789")[:11] + "%d"
        # The first port's MTU, since a bridge has the lowest of its ports'.
        mtu = profile.mtu or (interfaces.mtu_of(index) if index else self._settings.mtu)
        accept_ra, address = self._settings.accept_ra, self._interface.addresses.further
        more = {"accept_ra": accept_ra, "multi_queue": queues}
        tap = open_tap(pattern, bridge, mtu, names=self._names, address=address, **more)
        return self._port(tap, origin, joined=bridge)

    def take_over(self, owners: Owners, timeout: float, expire: Callable[[Port], None]) -> list[Port]:
        """Park the ports that the last process has left, each for its client, and have in force what these need. For
        `timeout` and `expire` see Port.park(). Return all but the first port."""
        for port, state in self.found:
            if state.in_use:
                port.take_over(owners.of(port.client.identity, port.client.address), timeout, expire)
                self._hooks.take_over(port)
                port.tap.start_carrier_timeout(self._settings.carrier_timeout)
        kept = [
            KeptFilter(port.filter, state.name, self._known_rules(port.profile), port.state is State.PARKED)
            for port, state in self.found
        ]
        self._kernel_filters.take_over(kept)
        ports = [port for port, _ in self.found]
        if kept:
            names = some_of([port.tap.name for port in ports], NAMED)
            about = event(PORT, what="taken over", count=len(kept))
            log.info("%s: used on as the last process has left them", names, extra=about)
        for port in ports:
            self._kept.note(port)
        self.found = []
        return [port for port in ports if port is not self.first]

    def note(self, port: Port) -> None:
        """The port is new, or its client or the rules of that have changed: keep that for the next process."""
        self._kept.note(port)
        self._hooks.note(port)
        if port.state is State.IN_USE:
            self._interface.connecting()

    def renew_first(self) -> bool:
        """If somebody has deleted the first port's TAP, make a new first port, and return True. Raises DeviceError."""
        tap = self._interface.check()
        if tap is self.first.tap:
            return False
        self._kept.drop(self.first)
        self._hooks.gone(self.first)
        self._forget_name(self.first)
        self.first.filter.forget()
        self.first = self._port(tap, self._origin(Profile()))
        self._kept.note(self.first)
        return True

    def close_port(self, port: Port) -> None:
        """Remove a port that is not the first. It is gone already."""
        self._kept.drop(port)
        self._hooks.gone(port)
        self._forget_name(port)
        self._bridges.forget(port.tap.index)
        port.withdraw()
        port.tap.close()
        self._kernel_filters.remove_stale_tables_soon()

    def close_ports(self, ports: Iterable[Port]) -> None:
        """As close_port(), for all that are left: together it takes less time."""
        closing = [gevent.spawn(self.close_port, port) for port in ports]
        gevent.sleep(0)
        tap_removal.finish()
        gevent.joinall(closing, raise_error=True)

    def close(self) -> None:
        """Remove the first port, and the bridges that were made here unless others use them."""
        # Ports that sessions have given back a moment ago.
        tap_removal.finish()
        self._hooks.gone(self.first)
        self._hooks.close()
        self._kept.drop(self.first)
        self._close_loops()
        self._interface.close()
        self._kernel_filters.close()

    def keep(self, ports: Iterable[Port]) -> None:
        """Have the store keep these ports as they are now, also if it does not outlast a crash."""
        self._kept.keep(ports)

    def hand_over(self, ports: Iterable[Port]) -> None:
        """Another process has these ports, which are all, from now on: they and all that is in force there stay."""
        for port in ports:
            if port is not self.first:
                port.tap.release()
        self._close_loops()
        self._hooks.close()
        self._interface.hand_over()
        self._kernel_filters.hand_over()

    def _close_loops(self) -> None:
        if self._loops is not None:
            self._loops.close()

    def _origin(self, profile: Profile) -> Origin:
        """With what a port for a client of this profile is made."""
        settings = self._settings
        return Origin(profile.device or settings.device, profile.bridge or settings.bridge, profile.mtu or settings.mtu)

    def _port(self, tap: Tap, origin: Origin, was: Was = None, joined: int | None = None) -> Port:
        port = Port(tap, self._kernel_filters.port_filter(tap.index, tap), origin)
        if joined:
            self._bridges.add_new(tap.index, origin.bridge, port.filter, joined)
        else:
            self._bridges.add(tap.index, origin.bridge, port.filter, was=was)
        self._name_of[port] = tap.name
        self._names.add(tap.name, origin.device)
        return port

    def _forget_name(self, port: Port) -> None:
        """Its name may be another's. Somebody may have renamed it: this is the one with which it was made."""
        self._names.discard(self._name_of.pop(port, ""))

    def _is_wanted(self, found: Found) -> bool:
        """Whether a port that was found is still right, by the settings; it is removed if not."""
        wanted = self._origin(found.state.profile if found.state.in_use and not found.state.first else Profile())
        if found.state.device != wanted.device:
            self._kept.refuse(found, f"--device is {wanted.device} now, and was {found.state.device}")
            return False
        return True

    def _bridge_before(self, state: PortState, wanted: Origin) -> tuple[int, str] | None:
        """The bridge in which the interface was; None if it belongs in another one now."""
        return state.member if wanted.bridge in (None, state.bridge) else None

    def _adopt(self, found: Found, is_first: bool) -> None:
        """Use a port that was found, by the settings of now."""
        state, tap = found.state, found.tap
        origin = self._origin(Profile() if is_first else state.profile)
        try:
            if (index := tap.locate()) and origin.mtu and origin.mtu != state.mtu:
                interfaces.set_mtu(index, origin.mtu)
            if index and origin.bridge:
                self._make_once(origin.bridge)
                if origin.bridge != state.bridge:
                    log.warning("%s joins %s, the bridge that is named for it now", tap.name, origin.bridge)
                    interfaces.join(index, origin.bridge, isolated=rules_of(state.profile).isolated)
            port = self._port(tap, origin, self._bridge_before(state, origin))
        except DeviceError as exc:
            if is_first:
                raise
            self._kept.refuse(found, str(exc))
            return
        if is_first:
            self.first = port
        port.client, port.profile = ClientKey(state.identity, state.resume, state.address), state.profile
        port.changes.extend(state.changes)
        self._kept.use(port, found)
        self.found.append((port, state))

    def _make_once(self, bridge: str) -> None:
        """Make this bridge of a port that was found, unless it exists. It takes milliseconds to see that."""
        if bridge not in self._bridges_made:
            self._bridges.make(bridge, autoconfigure=self._settings.accept_ra, take_over=True)
            self._bridges_made.add(bridge)

    def _known_rules(self, profile: Profile) -> Rules:
        """The rules of this profile that this kernel can enforce; those of no client if it cannot, so that the next one
        is refused if it needs them."""
        try:
            return self.rules(profile)
        except DeviceError:
            return Rules()

    def _describe(self, port: Port) -> PortState:
        """What is to be kept of a port."""
        first = port is self.first
        inet = self._interface.inet.given if first else None
        return describe(port, first=first, member=self._bridges.membership(port.tap.index), inet=inet)
