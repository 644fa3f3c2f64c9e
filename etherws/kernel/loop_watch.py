"""Warns of loops through our ports: what the kernel tells of the bridges that they are in, and nothing else, is read.

No frame passes here. Of a storm's thousands of notifications a second only some are read and the rest is left to the
kernel to drop, so that watching takes no time from the sessions. Who puts a port into a bridge need not tell this.
Read next: loops.py, which finds the loops; own_frames.py.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket as blocking
from collections.abc import Callable, Iterable, Mapping
from time import monotonic

import gevent
from gevent import socket

from etherws.events import LOOP, event
from etherws.kernel import links, socket_filter
from etherws.kernel.loops import AF_BRIDGE, RTM_DELNEIGH, RTM_NEWNEIGH, Loop, Loops
from etherws.kernel.netlink_watch import RECEIVE, NetlinkWatch
from etherws.kernel.own_frames import OwnFrames
from etherws.log_limit import LogLimit
from etherws.walks import in_turns

log = logging.getLogger(__name__)

#: include/uapi/linux/rtnetlink.h
RTMGRP_NEIGH = 0x4

#: At most so many messages are read together, and not sooner again than after so many seconds. That takes a hundredth
#: of a processor at most.
MESSAGES, PAUSE = 64, 0.1

#: Seconds between two looks at what is not told: the addresses of bridges; and, while there is a loop, whether it is
#: over. A bridge that is new is looked at when it is told of.
LOOK_INTERVAL, LOOP_LOOK_INTERVAL = 10.0, 1.0

#: How many ports are asked for their bridges in one look.
ASKED_MAX = 16

#: How many bridges are watched for their own frames. A policy can name one for each client.
BRIDGES_MAX = 64


class LoopWatch:
    """Watches our ports and the bridges that they are in, and logs a warning for each loop, and a line when it is over;
    also a warning if another machine has the address of such a bridge, or of a port that is in none."""

    def __init__(self, ports: Callable[[], Mapping[int, str]], far_end: str = "") -> None:
        """`ports` returns our ports: the index of each, and who is at its other end, or "" for `far_end`, which only
        the warning of such an address names."""
        self._ports, self._far_end = ports, far_end
        self._loops = Loops(lambda: self)
        self._own: dict[int, OwnFrames] = {}
        #: The loops that were warned of, and what they are called.
        self._told: dict[Loop, str] = {}
        #: The bridges and ports of which was said that their own frames come back.
        self._told_of: set[int] = set()
        self._limit = LogLimit(log)
        self._watch: NetlinkWatch | None = None

    def __contains__(self, port: object) -> bool:
        """Whether a loop by the port of this index is to be told of: it is ours; or a VXLAN in a bridge of ours. What
        goes in a loop between gateways floods our ports, and passes none of them on its way."""
        ours, bridges = self._ports(), self._loops.bridges
        if port in ours or not isinstance(port, int):
            return port in ours
        with contextlib.suppress(OSError):
            return bridges.get(port) in {bridges.get(each) for each in ours} - {None} and links.is_vxlan(port)
        return False

    def start(self) -> None:
        """Watch from now on. What the kernel does not tell this user goes unnoticed; the log has that with --debug."""
        # After a failure nothing is missed: _read_all() begins with a look.
        self._watch = NetlinkWatch(socket.NETLINK_ROUTE, _join, self._read_all, lambda: None, "loops")

    def close(self) -> None:
        """Watch no longer."""
        if self._watch is not None:
            self._watch.close()
        for own in self._own.values():
            own.close()
        self._own.clear()

    def going_on(self) -> list[str]:
        """A sentence for each loop that was warned of and is not over yet."""
        return [
            *(f"frames go in a loop {between}; the log says what to try" for between in self._told.values()),
            *map(self._coming_back, sorted(self._told_of)),
        ]

    def _coming_back(self, index: int) -> str:
        ours, name = self._ports(), _name(index)
        if index in ours:
            who = ours[index] or self._far_end or "the other side"
            return f"{who} sends frames from the address of {name} itself; the log says what to try"
        return f"frames go in a loop: what {name} itself sends comes back to it; the log says what to try"

    def _read_all(self, sock: socket.socket) -> None:
        """Read notifications, without end."""
        look, told_of = monotonic(), set[int]()
        while True:
            left = max(0.001, look - monotonic())
            gevent.with_timeout(left, socket.wait_read, sock.fileno(), timeout_value=None)
            now = monotonic()
            for _ in in_turns(range(MESSAGES)):
                try:
                    data = sock.recv(RECEIVE)
                except BlockingIOError:
                    break
                except OSError as exc:
                    # The kernel has dropped messages: there are too many, or this process came late.
                    if exc.errno != errno.ENOBUFS:
                        raise
                    continue
                for loop in self._loops.read(data, now):
                    self._warn(loop)
            if now >= look or told_of != set(self._loops.bridges.values()):
                self._find_bridges()
                self._say_what_is_over(now)
                told_of = set(self._loops.bridges.values())
                look = now + (LOOP_LOOK_INTERVAL if self._loop_goes_on() else LOOK_INTERVAL)
            gevent.sleep(PAUSE)

    def _warn(self, loop: Loop) -> None:
        ours = self._ports()
        first, second = (_described(port, ours) for port in loop.ports)
        bridge = _name(loop.bridge)
        named = [_name(port) for port in loop.ports if port in ours or not set(loop.ports) & ours.keys()]
        choice = named if len(named) > 1 else [*named, "another port of the loop"]
        # A port may be gone when the loop is over.
        self._told[loop] = f"between {first} and {second} in {bridge}"
        self._limit.log(
            logging.WARNING,
            "loop",
            "frames go in a loop %s: the address %s moves from one to the other again and again. %s. Or two machines"
            " use this address, or somebody forges it",
            self._told[loop],
            loop.address,
            _mend(loop.bridge, bridge, " or ".join(choice), loop.ports),
            extra=event(LOOP, bridge=bridge, ports=[first, second], address=loop.address),
        )

    def _own_frames_came(self, bridge: int, port: int | None) -> None:
        """Own frames come back: say so, if that is not another view of a loop that was told already."""
        gevent.sleep(PAUSE)
        ours, name = self._ports(), _name(bridge)
        if bridge in ours:
            self._told_of.add(bridge)
            self._limit.log(
                logging.WARNING,
                "own",
                "%s sends frames from the address of %s itself, %s: either another machine has this address, such as a"
                " clone of this one, or what this machine sends goes round and comes back. Give one of the two"
                " machines another address (--mac), or look for a second way between the two LANs",
                ours[bridge] or self._far_end or "the other side",
                name,
                _address_of(bridge),
                extra=event(LOOP, bridge=None, ports=[name], address=_address_of(bridge)),
            )
            return
        if self._loops.is_active_in(bridge):
            return
        self._told_of.add(bridge)
        self._limit.log(
            logging.WARNING,
            "own",
            "frames go in a loop: what %s itself sends comes back to it%s. %s. Or another machine uses the address"
            " of %s; then give one of the two another (--mac, or ip link set %s address)",
            name,
            f" by {_described(port, ours)}" if port is not None else "",
            _mend(bridge, name, "the port"),
            name,
            name,
            extra=event(LOOP, bridge=name, ports=[_described(port, ours)] if port is not None else [], address=None),
        )

    def _loop_goes_on(self) -> bool:
        return self._loops.active or any(own.last is not None for own in self._own.values())

    def _say_what_is_over(self, now: float) -> None:
        for loop in self._loops.ended(now):
            about = event(LOOP, bridge=_name(loop.bridge), over=True)
            self._limit.log(logging.WARNING, "over", "the loop %s is over", self._told.pop(loop), extra=about)
        for bridge, own in self._own.items():
            if own.has_ended(now) and bridge in self._told_of:
                self._told_of.discard(bridge)
                about = event(LOOP, bridge=_name(bridge), over=True)
                text = "%s no longer gets its own frames back"
                self._limit.log(logging.WARNING, "over", text, _name(bridge), extra=about)

    def _find_bridges(self) -> None:
        """Watch the bridges that our ports are in, and those of our ports that are in none, for their own frames."""
        ours = self._ports()
        known, alone = self._loops.bridges, set[int]()
        # What became of a port before the start was not told; and what came in a flood was not read.
        unknown = [port for number, port in enumerate(ours) if number == 0 or port not in known]
        for port in in_turns(unknown[:ASKED_MAX]):
            known.pop(port, None)
            with contextlib.suppress(OSError):
                if master := links.get(port).master:
                    known[port] = master
                else:
                    alone.add(port)
        bridges = {known[port] for port in ours if port in known}
        gone = {bridge for bridge in bridges if not _exists(bridge)}
        for port in [port for port, bridge in known.items() if bridge in gone]:
            del known[port]
        bridges = set(sorted(bridges - gone)[:BRIDGES_MAX])
        for index in set(self._own) - bridges - alone:
            self._own.pop(index).close()
            self._told_of.discard(index)
        for index in in_turns(bridges | alone):
            try:
                address = links.get(index).address or ""
                if index in self._own:
                    self._own[index].set_address(address)
                else:
                    is_bridge = index in bridges
                    self._own[index] = OwnFrames(index, address, self._own_frames_came, is_bridge=is_bridge)
            except OSError as exc:
                self._limit.log(logging.DEBUG, "own", "own frames that come back go unnoticed: %s", exc.strerror)


def _join(sock: socket.socket) -> None:
    """Have bridges tell this socket of the addresses that they learn and forget. Raises OSError."""
    # Before it is in the group: the neighbours of this machine itself do not come.
    socket_filter.attach(sock, socket_filter.netlink_messages((RTM_NEWNEIGH, RTM_DELNEIGH), AF_BRIDGE))
    sock.bind((0, RTMGRP_NEIGH))
    sock.setblocking(False)


def _exists(index: int) -> bool:
    try:
        return bool(blocking.if_indextoname(index))
    except OSError:
        return False


def _name(index: int) -> str:
    """The interface's present name."""
    try:
        return blocking.if_indextoname(index)
    except OSError:
        return f"interface {index} (deleted)"


def _address_of(index: int) -> str:
    """The interface's present Ethernet address; empty if it is gone."""
    with contextlib.suppress(OSError):
        return links.get(index).address or ""
    return ""


def _described(port: int, ours: Mapping[int, str]) -> str:
    return f"{_name(port)} ({ours[port]})" if ours.get(port) else _name(port)


def _mend(bridge: int, name: str, ports: str, way: Iterable[int] = ()) -> str:
    """What to try. `way` has the ports of the loop, as far as they are known."""
    with contextlib.suppress(OSError):
        if any(map(links.is_vxlan, way)):
            # It might close the way to all other gateways.
            return (
                f"Take {ports} out of {name}. For two ways on purpose turn spanning tree on where they begin, in the"
                " far LAN, and not here (docs/gateways.rst)"
            )
        if links.has_spanning_tree(bridge):
            return (
                f"Spanning tree is on in {name}, but does not see it: do rules drop bpdu here or at the other end?"
                f" Else take {ports} out of {name}"
            )
    return f"Take {ports} out of {name}, or turn spanning tree on: ip link set {name} type bridge stp_state 1"
