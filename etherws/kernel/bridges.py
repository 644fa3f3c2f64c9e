"""The bridges of our interfaces: makes them, has interfaces join again, and removes at the end what nobody uses.

A bridge that was deleted and made again is joined again by what was in it. An interface that somebody has taken out of
a bridge, or moved, stays where it is, with a warning; unless a reload of ifupdown2 has done that to one for which the
user named the bridge. Nothing here sees a frame. Read next: membership.py, which decides; made_bridges.py.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import monotonic

import gevent
from gevent.event import Event

from etherws.errors import DeviceError, some_of
from etherws.kernel import bring_up, links
from etherws.kernel.bridge_members import BridgeMembers
from etherws.kernel.bridge_port import PlainPort, Port, seen
from etherws.kernel.bridge_warnings import gone, warning
from etherws.kernel.device_errors import device_errors
from etherws.kernel.link_changes import EVERYTHING, Touched
from etherws.kernel.link_watch import LinkWatch
from etherws.kernel.made_bridges import MadeBridges
from etherws.kernel.membership import Membership, State, Verdict, Was
from etherws.kernel.place import Device
from etherws.log_limit import LogLimit
from etherws.walks import in_turns

log = logging.getLogger(__name__)

#: Seconds between two rounds of looking and joining at least: so many a second, however much others change.
ROUND_INTERVAL = 0.1

#: Seconds until an interface that could not join tries again.
RETRY_INTERVAL = 1.0

#: How many interfaces a line of the log names, and how many are looked at together: each takes 0.1 ms.
NAMED, TOGETHER = 5, 4


class Bridges:
    """The bridges of the interfaces that add() was called for."""

    def __init__(self, address: Callable[[str], str] | None = None) -> None:
        """`address` is as for MadeBridges."""
        #: Tells of all changes of interfaces: others may listen, too, and are told after this.
        self.links = LinkWatch()
        self.links.listen(self._changed)
        self._members: dict[int, tuple[Membership, Port]] = {}
        self._by_bridge = BridgeMembers()
        #: Those in another network namespace, and the bridge that the user has named for each.
        self._elsewhere: dict[Port, str | None] = {}
        self._made = MadeBridges(address)
        #: Those that are to join, and when.
        self._joining: dict[int, float] = {}
        #: The bridges whose deletion the log has told, and when that was.
        self._deleted: dict[int, float] = {}
        self._wake, self._limit = Event(), LogLimit(log)
        self._worker: gevent.Greenlet[..., None] | None = None

    def start(self) -> None:
        """Watch from now on."""
        self.links.start()
        self._worker = gevent.spawn(self._work)

    def close(self) -> None:
        """Watch no longer, and remove the bridges that were made here, unless somebody uses them."""
        self.hand_over()
        self._made.remove()

    def hand_over(self) -> None:
        """Another process watches from now on: leave all as it is."""
        self.links.close()
        gevent.killall([self._worker] if self._worker else [])

    def make(self, name: str, *, autoconfigure: bool, take_over: bool = False) -> bool:
        """As MadeBridges.make(), and before, with `take_over`, as MadeBridges.take_over()."""
        if take_over:
            self._made.take_over(name, autoconfigure=autoconfigure)
        return self._made.make(name, autoconfigure=autoconfigure)

    def add(
        self, index: int, wanted: str | None, port: Port | None = None, *, device: Device | None = None, was: Was = None
    ) -> None:
        """See to it that the interface of this index stays in its bridge. `wanted` is the bridge that the user has
        named for it, which it has joined already, unless that is gone; None: it belongs where somebody puts it.
        Without a `port` it has no rules, and `device` is its TAP. `was` is the index and name of the bridge where
        another process has had it, as membership() said. Raises DeviceError."""
        self._made.use(wanted)
        port = port or PlainPort(index, device)
        if port.place.is_away():
            self._elsewhere[port] = wanted
            return
        member = self._members[index][0] if index in self._members else Membership(wanted)
        self._members[index] = member, port
        member.was_in(was)
        self._look([index])
        if wanted and member.state is State.ALONE and self.present(wanted) is None:
            member.state, self._deleted[member.bridge] = State.AWAY, monotonic()
            self._note(index)
        if member.state is State.AWAY:
            port.bridge_is_away()
            self._wake.set()

    def add_new(self, index: int, wanted: str | None, port: Port, joined: int) -> None:
        """As add(), for an interface that was made here and has joined the bridge of this index: nothing is asked."""
        self._made.use(wanted)
        self._members[index] = (member := Membership(wanted)), port
        member.was_in((joined, wanted or links.name(joined)))
        self._note(index)

    def membership(self, index: int) -> Was:
        """The index and name of the bridge in which the interface of this index belongs; None if in none."""
        return (self._members[index][0].bridge, self._members[index][0].name) if self.belongs(index) else None

    def forget(self, index: int) -> None:
        """The interface goes."""
        self._members.pop(index, None)
        self._joining.pop(index, None)
        self._note(index)

    def place(self, wanted: str | None, like: int) -> int | None:
        """The index of the bridge for a new interface: the one where the others are for which the user named `wanted`;
        without that, the one of the interface of the index `like`. None if that is in none; a bond or VRF is none.

        Raises DeviceError if the bridge is gone and may come back: to join another one would divide the LAN.
        """
        if like in self._members and wanted is None:
            self._look([like])
            member = self._members[like][0]
            if member.state is State.AWAY:
                raise gone(member.name)
            with device_errors(f"find the bridge of interface {like}", {}):
                return member.bridge if member.state is State.IN and links.is_bridge(member.bridge) else None
        found = self.present(wanted) if wanted else None
        if wanted and found is None and self._by_bridge.wished(wanted):
            raise gone(wanted)
        return found

    def present(self, wanted: str) -> int | None:
        """The index of the bridge where those interfaces are for which the user named `wanted`, whatever its name is
        now; else of the one of that name. None if there is none. Raises DeviceError."""
        with device_errors(f"use the bridge {wanted}", {}):
            return next(filter(None, map(links.number, self._by_bridge.places(wanted))), None)

    def belongs(self, index: int) -> bool:
        """Whether the interface is in a bridge, or joins one as soon as it is there again."""
        return index in self._members and self._members[index][0].state in (State.IN, State.LEFT, State.AWAY)

    def _changed(self, touched: Mapping[int, Touched] | None) -> None:
        if touched is None:
            self._find_moved(dict.fromkeys(self._members, EVERYTHING))
            self._look_at_many(list(self._members))
            self._wake.set()
            return
        self._find_moved(touched)
        looked_at = [index for index in touched if index in self._members]
        for bridge in touched.keys() & self._by_bridge.of_bridge.keys():
            # A bridge of 1,000 ports is told of as often as ports join: that counts only if it is gone.
            if links.find(bridge) is None:
                looked_at += self._by_bridge.of_bridge[bridge]
        self._look_at_many(list(dict.fromkeys(looked_at)))
        if self._by_bridge.away:
            self._wake.set()

    def _find_moved(self, touched: Mapping[int, Touched]) -> None:
        """Forget the interfaces that were moved to another network namespace; know those again that have come back.
        They may have another index, and the old one may be that of a stranger."""
        for port, wanted in list(self._elsewhere.items()):
            if not port.place.is_away():
                del self._elsewhere[port]
                if port.place.exists():
                    self.add(port.place.index, wanted, port)
        for index in in_turns([index for index, what in touched.items() if Touched.PLACE in what]):
            if index in self._members and self._members[index][1].place.is_away():
                self._leave(index)

    def _leave(self, index: int) -> None:
        """The interface is gone, or in another network namespace."""
        member, port = self._members[index]
        self.forget(index)
        if port.place.is_away():
            self._elsewhere[port] = member.wanted

    def _look(self, indexes: Iterable[int]) -> None:
        """Look at these interfaces. What is to join is left to the worker."""
        find, name = functools.cache(links.find), functools.cache(links.name)  # Many are in the same bridge.
        with device_errors("look at interfaces", {}):
            for index in dict.fromkeys(indexes):
                if index not in self._members:
                    continue
                if (link := links.find(index)) is None:
                    self._leave(index)
                    continue
                member, port = self._members[index]
                before, verdict = member.name, member.look(seen(link, member, find, name), monotonic())
                self._note(index)
                self._follow(link, port, verdict, before)
                if member.due is not None:
                    self._wake.set()

    def _look_at_many(self, indexes: Sequence[int]) -> None:
        """As _look(), in turns."""
        for at in in_turns(range(0, len(indexes), TOGETHER)):
            self._look(indexes[at : at + TOGETHER])

    def _note(self, index: int) -> None:
        """Note in which bridge the interface belongs."""
        member = self._members[index][0] if index in self._members else None
        for bridge in self._by_bridge.note(index, member):
            self._deleted.pop(bridge, None)

    def _follow(self, link: links.Link, port: Port, verdict: Verdict, before: str) -> None:
        member = self._members[link.number][0]
        if verdict in (Verdict.JOIN, Verdict.RELOADED):
            self._joining.setdefault(link.number, 0.0)
        if verdict in (Verdict.JOIN, Verdict.RELOADED, Verdict.DELETED):
            self._wake.set()
        if verdict is Verdict.DELETED:
            port.bridge_is_away()
            if member.bridge not in self._deleted:
                self._deleted[member.bridge] = monotonic()
                log.warning("%s was deleted; what etherws had in it joins again as soon as it is there again", before)
        elif text := warning(verdict, link.name, before, member.name, up=link.up):
            self._warn(verdict.value, text)

    def _warn(self, kind: str, text: str) -> None:
        self._limit.log(logging.WARNING, kind, "%s", text)

    def _work(self) -> None:
        """Join, in rounds, without end."""
        while True:
            due = [*self._joining.values(), *(one.due for one, _ in self._members.values() if one.due is not None)]
            if self._by_bridge.away:
                due.append(monotonic() + RETRY_INTERVAL)
            self._wake.wait(max(0.0, min(due) - monotonic()) if due else None)
            self._wake.clear()
            try:
                self._round()
            except (DeviceError, OSError) as exc:
                self._warn("failed", f"interfaces cannot be looked at: {exc}")
            gevent.sleep(ROUND_INTERVAL)

    def _round(self) -> None:
        """One round. Raises DeviceError and OSError."""
        now = monotonic()
        self._look_at_many([index for index, (member, _) in self._members.items() if member.due is not None])
        self._look_for_bridges(now)
        joined: dict[str, list[str]] = {}
        for index in in_turns([index for index, at in self._joining.items() if at <= now]):
            if index not in self._members:
                # Gone since it was to try again.
                self._joining.pop(index, None)
            elif found := self._join(index):
                joined.setdefault(found[1], []).append(found[0])
        for bridge, names in joined.items():
            log.warning("%s joined %s again", some_of(names, NAMED), bridge)

    def _look_for_bridges(self, now: float) -> None:
        """See whether bridges are there again; make those again that were made here."""
        away: dict[tuple[str, int], list[int]] = {}
        for index in self._by_bridge.away:
            member = self._members[index][0]
            away.setdefault((member.name, member.bridge), []).append(index)
        for (name, bridge), indexes in away.items():
            if links.find(name) is None:
                try:
                    self._made.make_again(name, now - self._deleted.get(bridge, now))
                except DeviceError as exc:
                    # Other bridges may be there again.
                    self._warn("make", f"{exc}; trying again")
            if links.find(name) is not None:
                self._joining.update((index, 0.0) for index in indexes if index not in self._joining)

    def _join(self, index: int) -> tuple[str, str] | None:
        """Have an interface join its bridge; return the names of both, or None if it cannot."""
        member, port = self._members[index]
        try:
            link, bridge = links.find(index), links.find(member.bridge) or links.find(member.name)
            # Others may have been faster.
            if link is None or bridge is None or link.master:
                self._joining.pop(index, None)
                return None
            port.join(bridge.number)
            # ifupdown sets ports down before it deletes their bridge.
            if not member.stays_down:
                bring_up.set_up(index)
        except (DeviceError, OSError) as exc:
            self._warn("join", f"{exc}; trying again")
            self._joining[index] = monotonic() + RETRY_INTERVAL
            return None
        self._joining.pop(index, None)
        if index in self._members:
            member.joined(bridge.number)
            self._note(index)
        self._made.is_now(member.name, bridge.number)
        return link.name, member.name
