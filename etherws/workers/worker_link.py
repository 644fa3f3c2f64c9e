"""One worker, as the port process sees it: what it asks and tells, and which ports it has.

Each port that it has is a lease, by a number that only this worker may use. Nothing that a worker sends may end this
process or reach the port of another worker. Read next: port_server.py, which has all workers; messages.py.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from etherws.errors import ChannelError, ClientGone, DeviceError, NoPort, printable
from etherws.server.comings import Parting
from etherws.server.member import Member
from etherws.server.port import Port
from etherws.server.ports import PARKED_MAX
from etherws.server.presence import Presence
from etherws.tunnel import tap_probe
from etherws.workers.channel import Answer, Channel, Request
from etherws.workers.lease import Lease
from etherws.workers.lent_checks import LentChecks
from etherws.workers.messages import (
    VERSION,
    Message,
    client_of,
    membership_of,
    membership_values,
    number,
    numbers,
    profile_of,
    text,
)

if TYPE_CHECKING:
    from etherws.workers.port_server import PortServer

log = logging.getLogger(__name__)

#: Seconds that a worker has to answer that a session of its is told to end. It does nothing but set an event for that,
#: so one that is alive answers in milliseconds, on a busy machine too; one that does not holds a port that its own
#: client waits for.
HUNG_AFTER = 5.0


class WorkerLink:
    """A worker. `pid` is its process, None if nobody knows it."""

    def __init__(self, server: PortServer, sock: socket.socket, pid: int | None) -> None:
        self._server, self.pid = server, pid
        #: The ports that it has, by number.
        self.leases: dict[int, Lease] = {}
        #: Those that are parked since it gave them back; the latest last.
        self._parked: OrderedDict[int, Lease] = OrderedDict()
        self._checks = LentChecks(server.ports.checks)
        self._numbers = 0
        self._greeted = self._hung = False
        #: Set when it has ended, and its ports are about to be parked.
        self.ended = Event()
        self.channel = Channel(sock)
        self.channel.start(self._serve, self._told, self._is_hung, self._ended)

    @property
    def label(self) -> str:
        """The worker, for the log."""
        return f"the worker with PID {self.pid}" if self.pid else "a worker"

    def evict(self, lease: Lease) -> None:
        """Have the session end, and wait until the worker says that it knows."""
        try:
            self.channel.call("evict", {"port": lease.number}, HUNG_AFTER)
        except ChannelError:
            # One that has ended a moment ago does not hang.
            if self.channel.peer_hears():
                self._is_hung(f"it does not answer for {HUNG_AFTER:g} s")
        finally:
            lease.evicted()

    def _is_hung(self, why: str) -> None:
        if self._hung:
            return
        self._hung = True
        log.error("%s must be ended: %s; its clients come back to another one", self.label, printable(why))
        self._server.on_hung(self, why)

    def _ended(self) -> None:
        self._checks.end_all()
        self._server.ended(self)
        self.leases.clear()
        self.ended.set()

    def _serve(self, verb: str, message: Message, request: Request) -> Answer:
        """Answer a call."""
        if not self._greeted and verb != "hello":
            raise ChannelError("it did not say which version it is")
        match verb:
            case "hello":
                return self._hello(message)
            case "take":
                return self._take(message, request)
            case "arm":
                return self._arm(message)
            case "apply":
                return self._apply(message)
            case "drops":
                return Answer({"drops": self._lease(message).port.filter.drops()})
            case "slot":
                return Answer({"slot": self._server.slot(self._lease(message).port.owner)})
            case "check":
                return Answer(self._checks.begin(message))
            case "check_slot":
                return Answer({"slot": self._server.slot(self._checks.find(message).owner)})
            case "stays":
                return Answer({"stays": self._server.stays(numbers(message, "sockets"))})
            case "login_wait":
                return Answer({"seconds": self._server.login_wait(text(message, "address"))})
        raise ChannelError(f"it asks for {printable(verb)!r}, which nobody knows")

    def _told(self, verb: str, message: Message) -> None:
        """Do what needs no answer."""
        if not self._greeted:
            raise ChannelError("it did not say which version it is")
        match verb:
            case "park":
                self._give_back(number(message, "port"), self._server.ports.park)
            case "free":
                self._give_back(number(message, "port"), self._server.ports.free)
            case "began":
                self._began(number(message, "port"))
            case "left":
                self._left(number(message, "port"), message)
            case "check_over":
                self._checks.over(message)
            case "login_failed":
                self._server.login_failed(text(message, "address"))
            case "counted":
                self._server.on_counted(self, message)
            case "event":
                self._server.on_event(self, message)
            case _:
                raise ChannelError(f"it tells {printable(verb)!r}, which nobody knows")

    def _hello(self, message: Message) -> Answer:
        theirs = number(message, "version")
        if theirs != VERSION:
            raise NoPort(
                f"the port process speaks version {VERSION} to its workers, and this worker {theirs}:"
                " two releases of etherws run beside each other; stop all of it and start it again"
            )
        self._greeted = True
        server = self._server
        values = {
            **{"version": VERSION, "name": server.ports.name, "resume_timeout": server.settings.resume_timeout},
            "uso": tap_probe.takes_uso(),
        }
        return Answer(values, (server.rates.fd,))

    def _take(self, message: Message, request: Request) -> Answer:
        client, profile = client_of(message), profile_of(message)
        self._numbers += 1
        lease = Lease(self, self._numbers)
        port = self._server.ports.take(client, profile, lease.evict, _Caller(request), membership_of(message))
        lease.begin(port)
        if self.channel.failure:
            # The worker has ended meanwhile.
            self._server.give_back(lease, self._server.ports.park)
            raise ClientGone
        self.leases[lease.number] = lease
        port.tap.stop_carrier_timeout()
        try:
            slot = self._server.slot(port.owner) if profile.rate_up else None
        except NoPort:
            self._give_back(lease.number, self._server.ports.free)
            raise
        values = {
            **{"port": lease.number, "index": port.tap.index, "slot": slot, "joining": port.joining},
            **membership_values(port.membership and port.membership._replace(id="", new=False)),
        }
        undo = partial(self._give_back, lease.number, self._server.ports.park)
        return Answer(values, port.tap.descriptors(), lambda: self._watch(lease), undo)

    def _watch(self, lease: Lease) -> None:
        """The worker knows the port by now: tell it when the rules cannot be put back."""
        if lease.valid():
            lease.port.on_failure(lease.fail)

    def _arm(self, message: Message) -> Answer:
        lease, source = self._lease(message), bytes.fromhex(_hexadecimal(message))
        lease.port.filter.arm(source, lease.hold)
        if not lease.valid():
            raise DeviceError(f"{lease.port.tap.name} has another client now")
        return Answer({})

    def _apply(self, message: Message) -> Answer:
        profile, lease = profile_of(message), self._lease(message)
        try:
            self._server.ports.apply(lease.port, profile)
        except DeviceError:
            lease.hold()
            raise
        self._server.end_surplus(lease.port.client.identity, profile.connections)
        return Answer({})

    def _began(self, found: int) -> None:
        """The session of a connection of a link carries frames now."""
        if (lease := self.leases.get(found)) is not None:
            lease.port.began(lease.retire)

    def _left(self, found: int, message: Message) -> None:
        """The session of a connection of a link has ended. Raises ChannelError."""
        lease = self.leases.get(found)
        if lease is None or not isinstance(lease.port, Member):
            return
        try:
            lease.port.record(Parting.from_values(message))
        except (KeyError, TypeError, ValueError) as exc:
            raise ChannelError(f"what a connection has carried is malformed: {exc!r}") from exc

    def _lease(self, message: Message) -> Lease:
        """The lease that a message names. Raises DeviceError if the port is not this worker's any more."""
        found = number(message, "port")
        lease = self.leases.get(found) or self._parked.get(found)
        if lease is None or not lease.valid():
            raise DeviceError("the port has another client now, or none")
        return lease

    def _give_back(self, found: int, verb: Callable[[Port | Member], None]) -> None:
        """The worker parks or frees a port."""
        lease = self.leases.pop(found, None) or self._parked.pop(found, None)
        if lease is None:
            return
        self._parked[found] = lease
        if len(self._parked) > PARKED_MAX:
            # Else who comes and goes often enough would have the ports forgotten that are kept for others.
            self._parked = OrderedDict((number, each) for number, each in self._parked.items() if each.valid())
        # No more are parked at all.
        while len(self._parked) > PARKED_MAX:
            self._parked.popitem(last=False)
        gevent.spawn(self._server.give_back, lease, verb)


class _Caller(Presence):
    """Whether the worker still waits for the answer to a request: it stops when its client hangs up."""

    def __init__(self, request: Request) -> None:
        super().__init__(None)
        self._request = request
        self._greenlet: gevent.Greenlet[..., object] | None = None

    def gone(self) -> bool:
        """As Presence.gone()."""
        return self._request.cancelled

    @contextlib.contextmanager
    def required(self) -> Iterator[None]:
        """As Presence.required()."""
        if self.gone():
            raise ClientGone
        if self._greenlet is not None:
            yield
            return
        self._greenlet = gevent.getcurrent()  # type: ignore[assignment]
        self._request.on_cancel = self._soon
        try:
            yield
        finally:
            self._greenlet = None

    def _soon(self) -> None:
        # Not now: that is another greenlet's time.
        gevent.get_hub().loop.run_callback(self._throw)

    def _throw(self) -> None:
        """Called by the event loop."""
        if self._greenlet is not None:
            self._greenlet.throw(ClientGone())


def _hexadecimal(message: Message) -> str:
    """The address of a frame's sender, or nothing. Raises ChannelError."""
    found = text(message, "source", 12)
    if len(found) not in (0, 12) or not set(found) <= set("0123456789abcdef"):
        raise ChannelError("'source' is no address")
    return found
