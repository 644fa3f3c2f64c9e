"""One PortFilter for each port: which rules its client needs, which the kernel has in force, and when to change them.

Nothing here sees a frame, but no frame may pass before its client's rules: the port's sink (tunnel/filtered_sink.py)
calls arm() before it writes the first one. A port's filters are one table of nf_tables; rate and isolation are settings
of the interface. Others may take each of them away: guard.py watches, calls lost() and restore(). What a client may
send per second is limited in tunnel/rate_limit.py. Read next: rules.py, filter_table.py, guard.py, interfaces.py.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore

from etherws.errors import DeviceError, EtherwsError
from etherws.kernel import address_sets, nftables
from etherws.kernel.device_errors import device_errors
from etherws.kernel.filter_state import Applied, FilterState
from etherws.kernel.filter_table import table_for
from etherws.kernel.learned import LearnedAddresses
from etherws.kernel.link_changes import EVERYTHING, Touched
from etherws.kernel.place import Device, Place
from etherws.kernel.port_settings import PortSettings
from etherws.kernel.port_tables import HINTS, remove_table
from etherws.kernel.rules import Rules, table_name

log = logging.getLogger(__name__)

#: How often rules are put in that others remove at the same moment.
TRIES = 3


class PortFilter:
    """What the kernel enforces at one interface. Every verb may be repeated; a repetition changes nothing.

    To replace rules takes the kernel 20 ms: too long for a thousand clients that come at once. So filters wait for the
    first frame, and are kept in force where they still fit. Rules for what goes to the client cannot wait.
    """

    def __init__(self, index: int, device: Device | None = None) -> None:
        """For the interface of this index, and its TAP. Guard.port_filter() makes one that is watched."""
        self.place = Place(index, device)
        self.needed = Rules()
        self.applied: Applied | None = None
        self.state = FilterState.ABSENT
        #: The interface's name in the table's, from before the table is put in; empty if there is none.
        self.name = ""
        #: What the present client's other ports have learned; None if that is nobody's business.
        self.learned: LearnedAddresses | None = None
        #: Why rules of the present client could not be put back, if so; and who is called with the reason.
        self.failure: DeviceError | None = None
        self.on_failure: Callable[[EtherwsError], None] | None = None
        #: Called when others take the rules away: no frame may pass before the next arm().
        self._hold: Callable[[], None] | None = None
        #: Whether frames wait for lost rules.
        self.waiting = False
        self.settings = PortSettings(self.place)
        self._one_at_a_time = BoundedSemaphore(1)
        #: Whether others changed the table since it was last put in.
        self._disturbed = False
        #: Not set in state LOST.
        self._decided = Event()
        self._decided.set()

    def need(self, rules: Rules, learned: LearnedAddresses | None = None, *, returning: bool = False) -> None:
        """A client comes that needs these rules. `returning`: it is the one that had the port before. `learned` is what
        other ports of its owner have learned. They are put in at once if they limit what goes to the client, or if
        other rules are in force; else arm() does it. Raises DeviceError if that fails; then none is in force."""
        with self._one_at_a_time:
            if not returning:
                self._set_aside()
            self.needed, self.learned, self.failure = rules, learned, None
            others = self.applied is not None and self.applied.rules != rules
        if others or rules.isolated or rules.rate_down or rules.port_vlans:
            self.ensure()

    def change(self, rules: Rules) -> None:
        """The client that has the port needs these rules from now on; its frames go on passing, by the new ones.

        Raises DeviceError as need().
        """
        used = self.state in (FilterState.USED, FilterState.LOST)
        self.need(rules, self.learned, returning=True)
        if used:
            self.arm(b"", self._hold)

    def ensure(self) -> None:
        """Put in the rules that are needed, unless they are in force. Raises DeviceError; then none is in force."""
        if not self._in_force():
            self._run(None)

    def arm(self, source: bytes = b"", hold: Callable[[], None] | None = None) -> None:
        """The client's first frame is about to pass, from the address `source`: have its rules in force. `hold` is
        called when others take them away. Raises DeviceError if that fails; then the frame must not pass."""
        self._hold = hold
        while not (self.state is FilterState.USED and self._in_force()):
            self.waiting = True
            self._decided.wait()
            self.waiting = False
            self._run(source)

    def leave(self) -> None:
        """The client has gone for good: what the rules have learnt goes on counting for its owner."""
        with self._one_at_a_time:
            self._set_aside()

    def forget(self) -> None:
        """The interface is gone, or about to be: there is nothing to put back."""
        self.applied, self.state, self.name = None, FilterState.ABSENT, ""
        self._hold = self.on_failure = None
        self._decided.set()

    def clear(self) -> None:
        """Remove the rules that are in force. No error if the interface is gone. Raises DeviceError."""
        with self._one_at_a_time:
            if self.applied is not None:
                self._clear(self.applied.name)

    def lost(self) -> None:
        """Others have changed the rules: no frame passes until restore() has put them back, or given up."""
        self._disturbed = True
        if self.state in (FilterState.UNUSED, FilterState.USED):
            self.state = FilterState.LOST
            self._decided.clear()
            if self._hold is not None:
                self._hold()

    def restore(self, *, last: bool) -> None:
        """Put lost rules back. Raises DeviceError; then frames go on waiting, or, with `last`, their sessions fail."""
        if self.state is FilterState.LOST:
            try:
                self._run(None, keep_waiting=not last)
            except DeviceError as exc:
                if not self.place.exists():
                    self.forget()
                    return
                if last:
                    self.failure = exc
                    if self.on_failure is not None:
                        self.on_failure(exc)
                raise

    def changed(self, touched: Touched = EVERYTHING) -> str:
        """What of the interface's settings that may be `touched` others have changed, for the log; empty if nothing."""
        with self._one_at_a_time:
            if self.applied is None or self.state not in (FilterState.UNUSED, FilterState.USED):
                return ""
            try:
                name = self.place.name()
            except DeviceError:
                return ""
            before, rules = self.applied.name, self.applied.rules
            if not name:
                return before and f"{before} was moved to another network namespace"
            if Touched.NAME in touched and name != before and rules.filters:
                what = f"{before} has a new name, {name}" if before else f"{name} is in this network namespace again"
            else:
                what = self.settings.missing(rules, name, touched)
            return what and f"{what}; what is enforced there is put in again"

    def refusal(self, rules: Rules) -> DeviceError | None:
        """Why these rules cannot be in force at this port at all; None if they can."""
        if not rules.on_request or not self.place.is_away():
            return None
        return DeviceError(
            f"{self.place.label} is in another network namespace, where the rules of its client cannot be watched;"
            " move it back, and give that namespace one end of a veth pair, with the other in the same bridge"
        )

    def bridge_is_away(self) -> None:
        """The interface's bridge is gone: until join() the client needs no isolation."""
        self.settings.bridge_is_away = True

    def join(self, bridge: int) -> None:
        """Put the interface into the bridge of this index, by its client's rules from the first frame on.

        Raises DeviceError.
        """
        with self._one_at_a_time:
            self.settings.join(bridge, self.applied.rules if self.applied else self.needed)

    def drops(self) -> dict[str, int]:
        """How many of the client's frames were dropped since its rules were put in, by reason; empty if it has sent no
        frame, or if the kernel does not tell."""
        if self.applied is None or self.state is not FilterState.USED:
            return {}
        try:
            counts = nftables.frame_counts(table_name(self.applied.name))
        except OSError:
            return {}
        return {reason: frames for reason, frames in counts.items() if frames}

    def _in_force(self) -> bool:
        """Whether the needed rules are in force under the interface's present name: somebody may have renamed it."""
        if self.state not in (FilterState.UNUSED, FilterState.USED):
            return False
        return self.applied == (self.place.name(), self.needed)

    def _run(self, source: bytes | None, *, keep_waiting: bool = False) -> None:
        # In a greenlet of its own: the kernel's answer must be heard, even if the session that asked ends meanwhile.
        if error := gevent.spawn(self._apply, source, keep_waiting).get():
            raise error

    def _apply(self, source: bytes | None, keep_waiting: bool) -> DeviceError | None:
        """Have the needed rules in force; with a `source`, for the client's frames. Return what went wrong: the state
        is then LOST with `keep_waiting`, else ABSENT."""
        with self._one_at_a_time:
            try:
                for _ in range(TRIES):
                    if not self._in_force():
                        self._install()
                    if source is not None and self.state is FilterState.UNUSED:
                        self._use(source)
                    if self.state is not FilterState.LOST:
                        break
                else:
                    raise DeviceError(f"others remove the rules of {self.name} again and again; stop that program")
            except DeviceError as exc:
                try:
                    if self.name:
                        self._clear(self.name)
                except DeviceError as also:
                    # The first error is what the client is refused for.
                    log.error("%s", also)
                self.state = FilterState.LOST if keep_waiting else FilterState.ABSENT
                return exc
            finally:
                if self.state is FilterState.LOST:
                    self._decided.clear()
                else:
                    self._decided.set()
            return None

    def _install(self) -> None:
        """Put in the needed rules. The state is then UNUSED, or LOST. Raises DeviceError."""
        rules, name = self.needed, self.place.name()
        if self.state in (FilterState.USED, FilterState.LOST):
            self._remember()
        if self.applied is not None and self.applied.name != name:
            self.place.remove_table(self.applied.name)
        self.applied, self.state, self.name = None, FilterState.ABSENT, name
        self._disturbed = False
        if not name:
            if refusal := self.refusal(rules):
                raise refusal
            self.place.warn_away()
        elif rules.filters:
            with device_errors(f"filter what comes in by {name}", HINTS):
                table_for(name, rules).install()
        else:
            remove_table(name)
        # The kernel also takes rules for a name that no interface has.
        if self.place.name() != name:
            renamed = f"cannot filter what comes in by {name}: it has another name now; try again"
            raise self.refusal(rules) or DeviceError(renamed)
        if name:
            self.settings.apply(rules)
        self.applied = Applied(name, rules)
        self.state = FilterState.LOST if self._disturbed else FilterState.UNUSED

    def _use(self, source: bytes) -> None:
        """Frames are about to pass: put in what the owner's other ports have learned. Raises DeviceError."""
        if self.name and self.learned is not None and isinstance(self.needed.macs, int):
            try:
                address_sets.fill(self.name, self.learned, self.needed.macs, source)
            except OSError as exc:
                # Others may have removed the table since.
                self.state = FilterState.LOST
                if exc.errno != errno.ENOENT:
                    raise DeviceError(f"cannot limit the addresses of {self.name}: {exc.strerror}") from exc
        if self.state is FilterState.UNUSED:
            self.state = FilterState.USED

    def _set_aside(self) -> None:
        """Another client's rules may come: keep what these have learnt, for their owner."""
        if self.state in (FilterState.USED, FilterState.LOST):
            self._remember()
            self.state = FilterState.OUTDATED
            self._decided.set()

    def _remember(self) -> None:
        if self.learned is None or self.applied is None or not (self.applied.name and self.applied.rules.learns):
            return
        try:
            address_sets.keep(self.applied.name, self.learned)
        except OSError as exc:
            log.warning(
                "cannot read which addresses the client of %s has used: %s; it may use others when it comes again",
                self.applied.name,
                exc.strerror,
            )

    def _clear(self, name: str) -> None:
        self.applied, self.state, self.name = None, FilterState.ABSENT, ""
        self.place.remove_table(name)
        self.settings.clear()
