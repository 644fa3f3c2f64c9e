"""What is wrong with the LAN of a server though its clients are connected: sentences for who looks at its status.

Loops, bridges that are down, ports that let nothing pass or are in another bridge than they belong in, and MTUs that
differ. It only looks, when somebody asks, and mends nothing. Read next: kernel/bridge_states.py, kernel/loop_watch.py,
which are looked at; observed.py, which shows this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

from etherws import features
from etherws.counters import Values
from etherws.errors import DeviceError
from etherws.kernel import bridge_states
from etherws.kernel.bridge_states import PortNow
from etherws.kernel.bridge_tables import BridgeTables
from etherws.kernel.shared_look import SharedLook
from etherws.server.port import Port, State
from etherws.server.ports import Ports
from etherws.walks import in_turns

#: Sentences that are shown: a screen's worth. One cause can concern each of a thousand ports.
WARNINGS_MAX = 20

#: Seconds for which what was seen is used, or longer if it took long.
FRESH = 1.0


class LanWarnings:
    """Of one server."""

    def __init__(self, ports: Ports, tables: BridgeTables, sessions: Callable[[], Callable[[Port], Values]]) -> None:
        """`tables` knows the bridges of the ports. `sessions` is as Inside.look() of observed.py."""
        self._ports, self._tables, self._sessions = ports, tables, sessions
        self._shared: SharedLook[list[str]] = SharedLook(FRESH)

    def look(self) -> list[str]:
        """What is wrong now, the worst first: WARNINGS_MAX sentences, and one that says how many more there are. It may
        be some seconds old. Blocks this greenlet while the kernel and the workers are asked."""
        return list(self._shared.get(self._look))

    def _look(self) -> list[str]:
        shown, more = list[str](), 0
        for text in self._all():
            if len(shown) < WARNINGS_MAX:
                shown.append(text)
            else:
                more += 1
        return [*shown, f"and {more} more"] if more else shown

    def _all(self) -> Iterator[str]:
        yield from self._ports.loops.going_on()
        ports, indexes = list(self._ports), set[int]()
        used = dict[int, str]()
        for port in in_turns(ports):
            indexes.add(port.tap.index)
            if port.state is State.IN_USE:
                used[port.tap.index] = port.client.label
        try:
            now = bridge_states.ports_now(indexes)
        except OSError:
            now = {}
        yield from bridge_states.troubles(now, used)
        yield from self._elsewhere(ports)
        yield from self._mtus(ports, now)

    def _elsewhere(self, ports: Collection[Port]) -> Iterator[str]:
        """The ports that are in another bridge than they belong in: the one that was named for them, else the one that
        most are in."""
        tables = self._tables.look()
        bridges, unnamed = dict[Port, str | None](), Counter[str]()
        for port in in_turns(ports):
            if port.state is not State.GONE and (behind := tables.get(port.tap.index)):
                bridges[port] = behind.bridge
                if behind.bridge and not port.origin.bridge:
                    unnamed[behind.bridge] += 1
        usual = unnamed.most_common(1)[0][0] if unnamed else None
        for port, bridge in in_turns(bridges.items()):
            wanted = port.origin.bridge or usual
            if bridge != wanted and wanted and _is_here(port):
                where = f"in {bridge}" if bridge else "in no bridge"
                why = "" if port.origin.bridge else ", where most ports of this server are"
                name = port.tap.name
                yield (
                    f"{_described(port)} is {where}, and not in {wanted}{why}: ip link set {name} up master {wanted}"
                )

    def _mtus(self, ports: Collection[Port], now: Mapping[int, PortNow]) -> Iterator[str]:
        """The sessions whose other end has told another MTU than the port's."""
        own = self._sessions()
        for port in in_turns(ports):
            if port.state is State.IN_USE and (theirs := own(port).get("peer_mtu")):
                found = now.get(port.tap.index)
                ours = found.mtu if found else port.tap.mtu()
                if ours and ours != theirs:
                    yield features.mtu_warning(port.tap.name, ours, port.client.label, theirs)


def _described(port: Port) -> str:
    name = port.tap.present_name()
    return f"{name} ({port.client.label})" if port.state is not State.FREE else name


def _is_here(port: Port) -> bool:
    """Whether the interface is in this network namespace: of others, no bridge is known."""
    try:
        return bool(port.tap.locate())
    except DeviceError:
        return False
