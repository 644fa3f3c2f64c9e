"""The server's ports: a TAP each, who has it, and what its kernel enforces for that client.

One port stands from start to stop, and one is made for each further client. Each is in the same Linux bridge, which
switches between the clients; nothing here sees a frame. A client that was lost has its port kept for a while, so that
the bridge's memory of its machines, and the interface's counters, survive a blip.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from etherws.access.policy import Profile
from etherws.errors import DeviceError, NoPort
from etherws.kernel import interfaces, port_filter
from etherws.settings import DeviceSettings
from etherws.tunnel.interface import Interface, open_tap
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import Buffer

log = logging.getLogger(__name__)

#: Two clients with one name throw each other out again and again: so many times in so many seconds are too many.
#: A client that roams comes back as who it was, and is not counted.
CHANGES, CHANGES_WITHIN = 3, 30.0

#: Ports that are kept for lost clients; past that the one that waited longest goes.
PARKED = 64

#: Seconds after which the rules of ports that are gone are removed.
SWEEP = 1.0

#: Seconds until a client that was told to go has let go of its port.
LET_GO = 2.0


@dataclass(frozen=True)
class Owner:
    """Whose a port is: `identity`, None where nobody needs a name; `resume`, what that client calls itself, so that it
    is known again, if it does."""

    identity: str | None = None
    resume: str | None = None


@dataclass(eq=False)
class Port:
    """One TAP, and who has it."""

    tap: Tap
    owner: Owner
    profile: Profile
    #: Ends the session that uses the port; None while it is parked.
    evict: Callable[[], None] | None = None
    #: The TAP's name when the kernel was told to enforce the profile; empty before.
    guarded: str = ""
    #: Set while no session uses it.
    free: Event = field(default_factory=Event)
    changes: deque[float] = field(default_factory=lambda: deque(maxlen=CHANGES))
    parked: gevent.Greenlet[..., None] | None = None


class Armed:
    """A TAP whose rules must be in force before the first packet of a client goes to it."""

    def __init__(self, tap: Tap, arm: Callable[[], None]) -> None:
        """`arm` puts them in; it raises DeviceError if it cannot."""
        self._tap, self._arm = tap, arm

    def write_batch(self, packets: Sequence[Buffer]) -> None:
        """As the TAP's."""
        self._arm()
        # From now on the way is as short as without rules.
        self.write_batch = self._tap.write_batch  # type: ignore[method-assign]
        self._tap.write_batch(packets)


class Ports:
    """Gives each client of a server a port: its own from before, else the standing one, else a new one beside that."""

    def __init__(self, settings: DeviceSettings, park: float = 0.0) -> None:
        """Make the standing TAP. A lost client's port is kept for `park` seconds. Raises DeviceError."""
        self._settings = settings
        self._park = park
        self._ports: list[Port] = []
        self._one_at_a_time = BoundedSemaphore(1)
        self._standing = Interface(settings)
        #: Why this kernel cannot filter, if it cannot.
        self._no_filters = self._check_filters()
        #: The standing TAP, whose rules it was given last, and what it was called then.
        self._last: tuple[Tap, Profile, str] | None = None
        self._sweeping: gevent.Greenlet[..., None] | None = None

    @property
    def name(self) -> str:
        """The standing TAP's name."""
        return self._standing.tap.name

    def take(self, owner: Owner, profile: Profile, evict: Callable[[], None]) -> Port:
        """A port for one client, until give_back(). `evict` is called once somebody else is to have it, and must lead
        to give_back() soon. Raises NoPort or DeviceError, with a hint.

        A client that comes again gets its port even if the server has not noticed yet that it was lost. One more client
        of an identity than the profile allows gets the port of the oldest.
        """
        # Making a TAP waits for the kernel: two that came at once would both be given the standing one.
        with self._one_at_a_time:
            if self._no_filters and (profile.drop or profile.macs != Profile().macs):
                raise self._no_filters
            port = self._own(owner, profile)
            # What the rules have learnt of the client who had it before is of use to the same one only.
            same = port is not None and port.owner == owner and owner.resume is not None
            guarded = port.guarded if port is not None and same else ""
            if port is None:
                port = Port(self._make(profile), owner, profile)
                self._ports.append(port)
            port.owner, port.profile, port.evict, port.guarded = owner, profile, evict, guarded
            port.free.clear()
            # A filter can wait until there is something to filter. It takes the kernel a moment that a thousand clients
            # who come at once, or come and go without a frame, would wait for one after the other.
            if profile.isolated or profile.rate_down or self._last_differs(port):
                try:
                    self.guard(port)
                except DeviceError:
                    self._remove(port)
                    raise
            return port

    def give_back(self, port: Port, *, lost: bool = False) -> None:
        """The session has ended; `lost` if its client did not say good-bye, and may come back.

        Raises DeviceError if the standing TAP was deleted and cannot be made anew.
        """
        port.evict = None
        port.free.set()
        if not (lost and self._park and port.owner != Owner() and port.tap.alive()):
            self._leave(port)
            return
        port.parked = gevent.spawn_later(self._park, self._leave, port)
        parked = [port for port in self._ports if port.parked is not None]
        if len(parked) > PARKED:
            self._leave(parked[0])

    def close(self) -> None:
        """Remove what was made: the TAPs, and the bridge unless others have come to use it."""
        for port in list(self._ports):
            self._remove(port)
        if self._sweeping:
            self._sweeping.kill()
        self._standing.close()
        self._sweep()

    def guard(self, port: Port) -> None:
        """Have the kernel enforce the port's profile, if it does not yet. Raises DeviceError."""
        if port.guarded:
            return
        tap = port.tap
        # Somebody may have given it another name.
        name = interfaces.name_of(tap.index)
        if self._last == (tap, port.profile, name) and not tap.written:
            # The standing TAP has the same rules from before, which have seen nothing.
            port.guarded = name
            return
        rules = port.profile
        if self._no_filters and rules.macs == Profile().macs:
            rules = replace(rules, macs=0)
        port_filter.apply(name, tap.index, rules)
        port.guarded, tap.written = name, False
        if tap is self._standing.tap:
            self._last = tap, port.profile, name

    def _last_differs(self, port: Port) -> bool:
        """Whether this is the standing TAP, and the client before had other rules."""
        return self._last is not None and self._last[0] is port.tap and self._last[1] != port.profile

    def _sweep(self) -> None:
        self._sweeping = None
        try:
            port_filter.sweep()
        except DeviceError as exc:
            log.error("%s", exc)

    def _check_filters(self) -> DeviceError | None:
        """What keeps this kernel from filtering; and away with what a killed server left of that."""
        try:
            port_filter.check()
            port_filter.sweep()
        except DeviceError as exc:
            log.warning("%s; so clients may have any number of source addresses, which is otherwise limited", exc)
            return exc
        return None

    def _own(self, owner: Owner, profile: Profile) -> Port | None:
        """The port that this client has already, or takes from another of its identity."""
        if owner == Owner():
            return None
        mine = [port for port in self._ports if port.owner.identity == owner.identity]
        same = next((port for port in mine if port.owner == owner and owner.resume is not None), None)
        if same is None and owner.identity is not None and len(mine) >= profile.connections:
            # The oldest, but rather one that nobody uses.
            same = min(mine, key=lambda port: port.evict is not None)
            if same.evict is not None:
                self._count_change(same)
        if same is None:
            return None
        if same.evict is not None:
            same.evict()
            if not same.free.wait(LET_GO):
                raise NoPort(f"{same.tap.name} is still in use by a session that was told to end")
        _unpark(same)
        # In the order of coming: the next one too many gets the one that was there longest.
        self._ports.remove(same)
        if not same.tap.alive() or same.profile != profile:
            # What the policy says of it may have changed, or somebody deleted it.
            self._let_go(same)
            return None
        self._ports.append(same)
        return same

    def _count_change(self, port: Port) -> None:
        now = monotonic()
        if len(port.changes) == CHANGES and now - port.changes[0] < CHANGES_WITHIN:
            raise NoPort(
                f"several clients call themselves {port.owner.identity!r} and take {port.tap.name} from each other;"
                " give each a name of its own, or more 'connections' by --policy"
            )
        port.changes.append(now)

    def _leave(self, port: Port) -> None:
        """The client will not come back, or not in time."""
        with self._one_at_a_time:
            if port.evict is not None or port not in self._ports:
                return
            self._ports.remove(port)
            self._standing.check()
        # Others need not wait for the kernel to take it apart.
        self._let_go(port)

    def _remove(self, port: Port) -> None:
        self._ports.remove(port)
        self._let_go(port)

    def _let_go(self, port: Port) -> None:
        _unpark(port)
        # The standing TAP's rules stay until there is a client with others: nothing comes in by it meanwhile.
        if port.tap is not self._standing.tap:
            port.tap.close()
            # Soon, but for all that go meanwhile: the kernel takes its time for each.
            self._sweeping = self._sweeping or gevent.spawn_later(SWEEP, self._sweep)

    def _make(self, profile: Profile) -> Tap:
        """The standing TAP if it is free and fits the profile, else a new one."""
        usual = not (profile.device or profile.bridge or profile.mtu)
        if usual:
            taken = next((port for port in self._ports if port.tap is self._standing.tap), None)
            if taken is not None and taken.parked is not None and self._where(profile)[0] is None:
                # Without a bridge there is this one only: rather this client than one that may never come back.
                self._remove(taken)
                taken = None
            if taken is None:
                return self._standing.check()
        name, mtu = self._where(profile)
        if name is None:
            raise NoPort(
                f"{self.name} serves another client and is in no bridge; put it into one"
                f" ('ip link set {self.name} master br0') or start the server with --bridge"
            )
        if profile.bridge:
            interfaces.make_bridge(profile.bridge)
        pattern = profile.device or self._settings.device
        if "%d" not in pattern and pattern in {self.name, *(port.tap.name for port in self._ports)}:
            pattern = pattern.rstrip("0123456789")[:11] + "%d"
        return open_tap(pattern, name, profile.mtu or mtu)

    def _where(self, profile: Profile) -> tuple[str | None, int]:
        """The bridge for one more port, or None; and the standing TAP's MTU, since a bridge's is the least of its
        ports'."""
        name, mtu = interfaces.bridge_and_mtu(self._standing.tap.index)
        return profile.bridge or self._settings.bridge or name, mtu


def _unpark(port: Port) -> None:
    if port.parked is not None and port.parked is not gevent.getcurrent():
        port.parked.kill()
    port.parked = None
