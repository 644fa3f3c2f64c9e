"""What an operator does to clients: ends those that he names, or all of them one after another.

Works on the ports alone, in the process that has them, and so for the sessions of any worker as well. Who may not come
back meanwhile is in gate.py. Read next: gate.py, port.py.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from time import monotonic

import gevent

from etherws.addresses import canonical, is_address
from etherws.close_codes import DRAINING, CloseCode
from etherws.errors import ConnectionClosed, EtherwsError, NoSuchClient, printable, some_of
from etherws.events import DRAIN, KICK, event
from etherws.server.port import EVICT_TIMEOUT, Port, State
from etherws.server.ports import Ports
from etherws.walks import in_turns

log = logging.getLogger(__name__)

#: What a session's end is called in the log, and what the client is told.
KICKED = "ended by the operator"

#: How many clients a line of the log names.
NAMED = 5


class Dismissal:
    """Of one server."""

    def __init__(self, ports: Ports, sleep: Callable[[float], object] = gevent.sleep) -> None:
        """`sleep` waits for so many seconds."""
        self._ports, self._sleep = ports, sleep
        self._draining: gevent.Greenlet[..., None] | None = None

    def kick(self, client: str, seconds: float, door: str) -> list[str]:
        """As Subject.kick()."""
        named = self._named(client)
        if seconds > 0:
            self._ports.gate.shut_out(*_keys(named, client), seconds)
        labels = [port.client.label for port in named]
        more = f", and refuses it for {seconds:g} s" if seconds > 0 else ""
        log.info(
            "asked by %s: the operator ends the tunnel of %s%s",
            door,
            some_of(labels, NAMED),
            more,
            extra=event(KICK, client=printable(client), seconds=seconds, ended=labels[:NAMED], count=len(labels)),
        )
        for port, since in in_turns([(port, port.since) for port in named]):
            # Others may have gone on, and then it may be another client's by now.
            if port.since == since:
                if port.state is State.IN_USE:
                    port.fail(ConnectionClosed(KICKED, CloseCode.POLICY_VIOLATION, tell=KICKED))
                gevent.spawn(self._make_sure, port, since)
        return labels

    def _named(self, client: str) -> list[Port]:
        """The ports of the client with this identity, address or interface. Raises NoSuchClient if there is none, or if
        the name means different clients, such as one by its identity and another by its interface."""
        # To ask each interface for its name takes two milliseconds for a thousand. What follows is of one moment.
        named = {port for port in in_turns(list(self._ports)) if port.tap.present_name() == client}
        found = [port for port in self._ports if port.state in (State.IN_USE, State.PARKED)]
        # However an IPv6 address is written.
        addresses = {client, _canonical(client) if ":" in client else client}
        ways = {
            "identity": [port for port in found if port.client.identity == client],
            "address": [port for port in found if port.client.address in addresses],
            "interface": [port for port in found if port in named],
        }
        meant = {what: ports for what, ports in ways.items() if ports}
        if not meant:
            raise NoSuchClient(
                f"no client has the identity, the address or the interface {printable(client)!r}; see 'etherws status'"
            )
        every = {port for ports in meant.values() for port in ports}
        for ports in meant.values():
            if len(ports) == len(every):
                return ports
        shown = " and ".join(
            f"the {what} of {some_of([f'{port.client.label} on {port.tap.name}' for port in ports], NAMED)}"
            for what, ports in meant.items()
        )
        raise NoSuchClient(
            f"{printable(client)!r} means several clients, and nothing was done; name one by another of its names"
            f" (identity, address, interface): it is {shown}"
        )

    def drain(self, seconds: float, door: str) -> None:
        """As Subject.drain(). Another call sets another time."""
        self._ports.gate.draining = True
        count = sum(port.state is State.IN_USE for port in self._ports)
        log.info(
            "asked by %s: draining; nobody may join any more, and %d tunnels end within %g s",
            door,
            count,
            seconds,
            extra=event(DRAIN, seconds=seconds, count=count),
        )
        if self._draining is not None:
            self._draining.kill(block=False)
        self._draining = gevent.spawn(self._drain, seconds)

    def _drain(self, seconds: float) -> None:
        end = monotonic() + seconds
        for port in [port for port in self._ports if port.state is State.PARKED]:
            # Its client is elsewhere by now, or goes there.
            self._make_sure(port, port.since)
        told: set[tuple[Port, float]] = set()
        while left := self._left(told):
            self._sleep(max(0.0, end - monotonic()) / left)
            for port in itertools.islice(self._in_use(told), 1):
                told.add((port, port.since))
                port.fail(ConnectionClosed(DRAINING, CloseCode.SERVICE_RESTART, tell=DRAINING))
                gevent.spawn(self._make_sure, port, port.since)
        log.info("drained: all tunnels have been told to end; stop the server now", extra=event(DRAIN, count=0))

    def _in_use(self, told: Iterable[tuple[Port, float]]) -> Iterator[Port]:
        return (port for port in self._ports if port.state is State.IN_USE and (port, port.since) not in told)

    def _left(self, told: Iterable[tuple[Port, float]]) -> int:
        return sum(1 for _ in self._in_use(told))

    def _make_sure(self, port: Port, since: float) -> None:
        """The port's session was told to end: see to it that the port is not in use, nor kept for its client."""
        client = port.client
        if port.state is State.IN_USE and not port.unused.wait(EVICT_TIMEOUT) and port.since == since and port.evict:
            # Its worker hangs: one that does not answer to this is ended.
            port.evict()
            port.unused.wait()
        if port.state is State.PARKED and port.client is client:
            try:
                self._ports.free(port)
            except EtherwsError as exc:
                log.error("%s", exc)


def _canonical(address: str) -> str:
    try:
        return canonical(address)
    except ValueError:
        return address


def _keys(ports: Iterable[Port], client: str) -> tuple[set[str], set[str]]:
    """The identities and the addresses that are to stay out: what the operator has named. Who has named an interface
    means its client: by its identity, or where there is none by its address."""
    identities, addresses = set[str](), set[str]()
    for port in ports:
        who = port.client
        if who.identity is not None and (who.identity == client or not is_address(client)):
            identities.add(who.identity)
        else:
            addresses.add(who.address)
    return identities, addresses
