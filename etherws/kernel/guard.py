"""Sees that the rules of ports stay in force: others may take them away, and then they are put back at once.

A reload of the firewall ("nft flush ruleset") removes all tables, also ours. nf_tables and rtnetlink tell of it. From
then until the rules are back no frame passes the port's sink. What passed before the kernel's message was read cannot
be helped. Read next: rule_changes.py, which reads the messages; port_filter.py, which has one port's rules.

Source: include/uapi/linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable, Mapping
from time import monotonic
from weakref import WeakSet, WeakValueDictionary

import gevent
from gevent import socket
from gevent.event import Event

from etherws.errors import DeviceError, some_of
from etherws.kernel import nftables, port_tables
from etherws.kernel.filter_state import FilterState
from etherws.kernel.link_changes import EVERYTHING, Touched
from etherws.kernel.link_watch import LinkWatch
from etherws.kernel.netlink_watch import RECEIVE, NetlinkWatch, make_room
from etherws.kernel.nfnetlink import NETLINK_NETFILTER, SEQUENCE
from etherws.kernel.place import Device
from etherws.kernel.port_filter import PortFilter
from etherws.kernel.rule_changes import Change, Finished, RuleChanges
from etherws.kernel.rules import ADDRESSES, PREFIX, table_name
from etherws.log_limit import LogLimit
from etherws.walks import in_turns

log = logging.getLogger(__name__)

#: include/uapi/linux/netlink.h, netfilter/nfnetlink.h
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES = 270, 1, 7

#: Seconds between two rounds of putting rules back. A program that removes them without end costs two rounds a second.
ROUND_INTERVAL = 0.5

#: Seconds before each further try to put the rules of one port back; then its session ends. Long enough for a script
#: that takes a port out of its bridge and puts it into another.
PAUSES = (0.1, 0.3, 0.6)

#: Seconds between two looks whether the kernel takes rules again.
RETRY_INTERVAL = 2.0

#: How many interfaces a line of the log names.
NAMED = 5


class Guard:
    """Watches the PortFilters that port_filter() makes. For one that is lost it calls lost() and restore()."""

    def __init__(self, links: LinkWatch | None = None) -> None:
        """`links` tells of interfaces, and is started and closed by who made it; None: this makes its own."""
        #: Why rules cannot be put back at present; None if they can.
        self.failure: DeviceError | None = None
        self._links, self._own_links = links or LinkWatch(), links is None
        self._links.listen(self._links_changed)
        self._filters: WeakValueDictionary[int, PortFilter] = WeakValueDictionary()
        #: Those whose interfaces are in another network namespace.
        self._away: WeakSet[PortFilter] = WeakSet()
        self._lost: dict[PortFilter, None] = {}
        self._wake = Event()
        self._rules: NetlinkWatch | None = None
        self._greenlets: list[gevent.Greenlet[..., None]] = []
        self._probe: gevent.Greenlet[..., None] | None = None
        self._limit = LogLimit(log)

    def port_filter(self, index: int, device: Device | None = None) -> PortFilter:
        """A filter for the interface of this index, and its TAP. It is watched as long as somebody has it."""
        made = PortFilter(index, device)
        made.place.is_taken = lambda name: any(one.name == name for one in self._filters.values())
        if made.place.is_away():
            self._away.add(made)
        else:
            self._filters[index] = made
        return made

    def start(self) -> None:
        """Watch from now on. What the kernel does not tell this user, it does not enforce for this user either."""
        self._rules = NetlinkWatch(
            NETLINK_NETFILTER, _join_rules, self._watch_rules, self._look_again, "changes of rules"
        )
        if self._own_links:
            self._links.start()
        self._greenlets = [gevent.spawn(self._put_back)]

    def close(self) -> None:
        """Watch no longer."""
        gevent.killall([*self._greenlets, *([self._probe] if self._probe else [])])
        if self._rules is not None:
            self._rules.close()
        if self._own_links:
            self._links.close()

    def look(self, filters: Iterable[PortFilter]) -> None:
        """See whether what these set at their interfaces is still in force; have it put back if not."""
        self._look_at({one.place.index: EVERYTHING for one in filters if self._filters.get(one.place.index) is one})

    def put_back_soon(self, one: PortFilter) -> None:
        """Its rules are not in force: put them in."""
        one.lost()
        self._soon(one)

    def _look_again(self) -> None:
        """Nobody knows what has happened: put all rules in again."""
        for one in list(self._filters.values()):
            self.put_back_soon(one)

    def _watch_rules(self, sock: socket.socket) -> None:
        changes, victims = RuleChanges(SEQUENCE), dict[PortFilter, None]()
        while True:
            # Each time, so that a flood of messages does not keep others waiting.
            socket.wait_read(sock.fileno())
            try:
                data = sock.recv(RECEIVE)
            except OSError as exc:
                if exc.errno != errno.ENOBUFS:
                    raise
                # The kernel has dropped messages.
                self._look_at_all(changes)
                continue
            present: dict[str, PortFilter] | None = None
            for change in changes.read(data):
                if isinstance(change, Finished):
                    if victims:
                        self._now_lost(list(victims), _author(change))
                        victims = {}
                    continue
                if not change.table.startswith(PREFIX):
                    # A firewall may have thousands of rules.
                    continue
                if present is None:
                    # Not for what we do ourselves, as for each client that comes.
                    present = {table_name(one.name): one for one in self._filters.values() if one.name}
                if (one := present.get(change.table)) and not _harmless(one, change):
                    # Before anything else: no further frame passes.
                    one.lost()
                    victims[one] = None

    def _look_at_all(self, changes: RuleChanges) -> None:
        present = nftables.handles()
        watched = {
            table_name(one.name): one
            for one in self._filters.values()
            if one.name and one.applied and one.applied.rules.filters
        }
        differing = [watched[name] for name in changes.differing(watched, present)]
        self._now_lost(differing, "a program that changed too much at once to be known")

    def _links_changed(self, touched: Mapping[int, Touched] | None) -> None:
        # A copy: others are told of the same.
        found = dict.fromkeys(self._filters, EVERYTHING) if touched is None else dict(touched)
        self._follow(found)
        self._look_at(found)

    def _look_at(self, found: Mapping[int, Touched]) -> None:
        for index, what in in_turns(found.items()):
            one = self._filters.get(index)
            if one is not None and one.applied and (change := one.changed(what)):
                self._limit.log(logging.WARNING, "changed", "%s", change)
                self.put_back_soon(one)

    def _follow(self, touched: dict[int, Touched]) -> None:
        """Know the interfaces that were moved to another network namespace, and find those that have come back: they
        may have another index."""
        for one in in_turns(list(self._away)):
            if not one.place.is_away():
                self._away.discard(one)
                self._filters[one.place.index] = one
                touched[one.place.index] = EVERYTHING
        for index in in_turns([index for index, what in touched.items() if Touched.PLACE in what]):
            if (gone := self._filters.get(index)) is not None and gone.place.is_away():
                self._away.add(gone)

    def _now_lost(self, victims: Iterable[PortFilter], author: str) -> None:
        """Stop the frames of these ports, warn, and have their rules put back."""
        names = []
        for one in victims:
            one.lost()
            if one.state is FilterState.LOST:
                names.append(one.name)
                self._soon(one)
        if names:
            self._limit.log(
                logging.WARNING,
                "removed",
                "the rules of %s were removed or changed by %s; frames wait until they are back. Let that program"
                " leave tables alone that are not its own: not 'flush ruleset', but 'flush table' with a name",
                some_of(sorted(names), NAMED),
                author,
            )

    def _soon(self, one: PortFilter) -> None:
        self._lost[one] = None
        self._wake.set()

    def _put_back(self) -> None:
        """Put lost rules back, in rounds, without end."""
        while True:
            self._wake.wait()
            self._wake.clear()
            begun = monotonic()
            lost, self._lost = self._lost, {}
            while lost:
                # Those first whose clients are waiting.
                one = next((one for one in lost if one.waiting), next(iter(lost)))
                del lost[one]
                try:
                    one.restore(last=False)
                except DeviceError as exc:
                    log.debug("%s", exc)
                    gevent.spawn(self._try_again, one)
            gevent.sleep(max(0.0, begun + ROUND_INTERVAL - monotonic()))

    def _try_again(self, one: PortFilter) -> None:
        for number, pause in enumerate(PAUSES, 1):
            gevent.sleep(pause)
            try:
                one.restore(last=number == len(PAUSES))
            except DeviceError as exc:
                failure = exc
            else:
                return
        self._limit.log(
            logging.ERROR, "failed", "%s; a session that needs these rules ends, until they can be put in", failure
        )
        if self._probe is None:
            self._probe = gevent.spawn(self._find_out)

    def _find_out(self) -> None:
        """Refuse who needs filters as long as the kernel takes none."""
        while True:
            try:
                port_tables.check()
            except DeviceError as exc:
                self.failure = exc
                gevent.sleep(RETRY_INTERVAL)
            else:
                break
        if self.failure is not None:
            log.warning("rules can be put in again: clients that need them are let in")
        self.failure = self._probe = None


def _join_rules(sock: socket.socket) -> None:
    sock.bind((0, 0))
    sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NFNLGRP_NFTABLES)
    make_room(sock)


def _harmless(one: PortFilter, change: Change) -> bool:
    """Whether only a set has changed that the client's frames fill anyway: its owner may take addresses out of it."""
    return change.elements_of == ADDRESSES and one.applied is not None and one.applied.rules.learns


def _author(change: Finished) -> str:
    return f"{change.program} (process {change.process})" if change.program else "another program"
