"""A worker's ports: another process has them, and lends them. The same verbs as server/ports.py.

A port that was lent is a TAP of this process, so frames go their way without the other process. What must be decided
or told to the kernel is asked there, by a message: a port for a client, its rules before the first frame, and what
counts for all workers together. Read next: port_server.py, the other side; server/ports_api.py.
"""

from __future__ import annotations

import contextlib
import socket
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Protocol
from weakref import WeakValueDictionary

import gevent

from etherws.access.policy import Profile
from etherws.access.profile_values import to_values
from etherws.addresses import source_key
from etherws.close_codes import CloseCode
from etherws.errors import ChannelError, ConnectionClosed, DeviceError, NoPort, Refused
from etherws.features import Membership
from etherws.server.login_queue import MAX_SOURCES
from etherws.server.port import ClientKey, State
from etherws.server.ports_api import link_of
from etherws.server.presence import UNKNOWN, Presence
from etherws.tunnel import tap_probe
from etherws.tunnel.fair_turns import Share
from etherws.tunnel.shared_rates import Rates
from etherws.workers.channel import Answer, Channel, Request
from etherws.workers.messages import (
    VERSION,
    Message,
    adopted,
    client_values,
    error_of,
    membership_of,
    membership_values,
    number,
    seconds,
    text,
)
from etherws.workers.remote_checks import RemoteChecks
from etherws.workers.remote_port import CALL_TIMEOUT, Parked, RemotePort

#: Seconds that a client waits for a port at most. etherws's client gives up after ten (settings.py, Retry).
TAKE_TIMEOUT = 30.0

#: Seconds for the answer whether others go on, of the two that a worker has for its end.
STAYS_TIMEOUT = 0.3


class Shown(Protocol):
    """What a worker has to show: worker_status.py."""

    def answer(self, verb: str, message: Message) -> Message:
        """Answer a call. Raises DeviceError, and ChannelError if nobody knows the verb."""

    def counted(self) -> Message:
        """What was counted here so far."""


class RemotePorts:
    """The ports that another process lends to this one."""

    def __init__(self, sock: socket.socket, on_end: Callable[[str], None]) -> None:
        """`sock` is one of datagrams.pair(); PortServer.attach() has the other one.

        `on_end` is called with the reason when this process is to end: the server stops, or the other process is gone,
        and then all sessions have been told to end. Raises ChannelError, also if the other process is of a release that
        cannot be talked to.
        """
        self._on_end = on_end
        #: Whether the server stops because another process takes over at once.
        self.handing_over = False
        #: Those in use, by number.
        self._ports: dict[int, RemotePort] = {}
        #: The part of this process's time of each link that has connections here.
        self._shares: WeakValueDictionary[object, Share] = WeakValueDictionary()
        self._ended = False
        #: What the other process may ask of this one; None as long as there is nothing to tell.
        self.shown: Shown | None = None
        #: Called when this process is to read its files again.
        self.on_reload: Callable[[], object] = lambda: None
        self._channel = Channel(sock)
        self._channel.start(self._serve, self._told, self._lost, lambda: self._lost(""))
        try:
            hello = self._channel.call("hello", {"version": VERSION}, CALL_TIMEOUT)
            #: The name of the first port's interface.
            self.name = text(hello.values, "name")
            self._resume_timeout = seconds(hello.values, "resume_timeout")
            self._parked = Parked(self._resume_timeout)
            self._rates = Rates(hello.fds[0])
            # A worker may make no interface.
            tap_probe.tell(takes=hello.values.get("uso") is True)
        except (NoPort, ValueError, IndexError) as exc:
            self._ended = True
            self._channel.close()
            raise ChannelError(str(exc)) from exc
        self.checks = RemoteChecks(self._channel, self._rates)
        self.limiter = RemoteLimiter(self._channel)

    def take(
        self,
        client: ClientKey,
        profile: Profile,
        evict: Callable[[], None],
        presence: Presence = UNKNOWN,
        membership: Membership | None = None,
    ) -> RemotePort:
        """As Ports.take(). Raises Refused if the other process is gone."""
        values = {**client_values(client), "profile": to_values(profile), **membership_values(membership)}
        try:
            with presence.required():
                answer = self._channel.call("take", values, TAKE_TIMEOUT, self._take_back)
            lent, given = number(answer.values, "port"), membership_of(answer.values, answer=True)
            try:
                tap = adopted(list(answer.fds), number(answer.values, "index"))
            except DeviceError:
                # As long as its interface is there, it may get it at another worker.
                self._channel.tell("park", {"port": lent})
                raise
        except ChannelError as exc:
            _refuse_at_end(self._channel, exc)
            raise NoPort(str(exc)) from exc
        port = RemotePort(self._channel, lent, tap, client, profile, evict, self._rates)
        port.slot = answer.values.get("slot")
        if given and membership:
            port.membership = membership._replace(member=given.member, of=given.of)
            port.joining = bool(answer.values.get("joining"))
            # As server/member.py: Member.
            port.tap.turn.share = self._shares.setdefault(link_of(port), port.tap.turn.share)
        self._ports[lent] = port
        return port

    def apply(self, port: RemotePort, profile: Profile) -> None:
        """As Ports.apply()."""
        # Frames wait until the new rules are in force, so that none passes if they cannot be.
        port.filter.held()
        port.profile = profile
        try:
            port.ask("apply", {"profile": to_values(profile)})
        except DeviceError:
            if port.state is not State.PARKED:
                raise
            # It may be another client's by now.
            self.free(port)

    def park(self, port: RemotePort) -> None:
        """As Ports.park()."""
        if port.client == ClientKey() or not self._resume_timeout:
            self._give_back(port, "park", State.FREE)
            return
        self._give_back(port, "park", State.PARKED)
        self._parked.add(port)

    def free(self, port: RemotePort) -> None:
        """As Ports.free()."""
        self._give_back(port, "free", State.FREE)

    def stays(self, sockets: list[int]) -> bool:
        """Whether other workers serve on when this one ends, on one of its listening sockets; by their inodes."""
        try:
            return bool(self._channel.call("stays", {"sockets": sockets}, STAYS_TIMEOUT).values.get("stays"))
        except (ChannelError, NoPort):
            # The other process is gone, and its sessions were told to come back.
            return True

    def keep(self) -> None:
        """As Ports.keep(): the other process keeps them anyway."""

    def hand_over(self) -> None:
        """As Ports.hand_over(): the other process has them anyway."""
        self.close()

    def offer(self, verb: str, values: Message) -> bool:
        """Tell the other process what it can do without, if there is room: return whether there was."""
        return self._channel.offer(verb, values)

    def lent(self) -> Mapping[int, RemotePort]:
        """The ports that this process has now, by number."""
        return self._ports

    def close(self) -> None:
        """This process ends: the other one parks the ports that it still has."""
        if self.shown is not None:
            self._channel.tell("counted", self.shown.counted())
        self._ended = True
        for port in self._ports.values():
            port.tap.close()
        self._ports.clear()
        self._channel.close()
        self._rates.close()

    def _give_back(self, port: RemotePort, verb: str, state: State) -> None:
        if self._ports.pop(port.number, None) is not None:
            port.tap.close()
        elif port.state is not State.PARKED:
            return
        else:
            self._parked.discard(port)
        port.become(state)
        self._channel.tell(verb, {"port": port.number})

    def _take_back(self, answer: Answer) -> None:
        """The client hung up while its port was on its way."""
        with contextlib.suppress(ChannelError):
            self._channel.tell("park", {"port": number(answer.values, "port")})

    def _serve(self, verb: str, message: Message, request: Request) -> Answer:
        """Answer what the other process asks."""
        if verb != "evict":
            if self.shown is None:
                raise NoPort("it has not started yet")
            return Answer(self.shown.answer(verb, message))
        if (port := self._port(message)) is not None:
            port.evict()
        return Answer({})

    def _told(self, verb: str, message: Message) -> None:
        """Do what the other process tells."""
        match verb:
            case "hold":
                if (port := self._port(message)) is not None:
                    port.filter.held()
            case "retire":
                if (port := self._port(message)) is not None:
                    port.retire()
            case "failure":
                if (port := self._port(message)) is not None:
                    port.fail(error_of(message))
            case "reload":
                # Not in the greenlet that reads.
                gevent.spawn(self.on_reload)
            case "stop":
                self.handing_over = bool(message.get("handing_over"))
                self._end("the server is stopping")
            case _:
                raise ChannelError(f"it tells {verb!r}, which nobody knows")

    def _port(self, message: Message) -> RemotePort | None:
        """The port that a message names; None if it was given back meanwhile."""
        return self._ports.get(number(message, "port"))

    def _lost(self, why: str) -> None:
        """Nobody keeps the rules of the ports in force any more."""
        reason = f"the port process is gone{why and ': '}{why}"
        for port in list(self._ports.values()):
            port.fail(ConnectionClosed(reason, CloseCode.SERVICE_RESTART))
        self._end(reason)

    def _end(self, reason: str) -> None:
        if not self._ended:
            self._ended = True
            # Not in the greenlet that reads: what ends a process waits for answers.
            gevent.spawn(self._on_end, reason)


def _refuse_at_end(channel: Channel, error: ChannelError) -> None:
    """Raise Refused if this worker is about to end. Its client need not wait: another worker will be there soon."""
    if channel.failure:
        raise Refused("503 Service Unavailable", "this server starts again; try again") from error


class RemoteLimiter:
    """As LoginLimiter, for all workers together."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        # Until when each source must wait, as the other process has said. It need not be asked before.
        self._until: OrderedDict[str, float] = OrderedDict()

    def wait(self, address: str, now: float) -> float:
        """As LoginLimiter.wait(). Raises Refused, 503, if the other process does not answer."""
        source = source_key(address)
        if (left := self._until.get(source, now) - now) > 0:
            return left
        try:
            answer = self._channel.call("login_wait", {"address": address}, CALL_TIMEOUT)
        except ChannelError as exc:
            _refuse_at_end(self._channel, exc)
            raise Refused(
                "503 Service Unavailable", "logins cannot be checked now; try again later", [("Retry-After", "10")]
            ) from exc
        self._until.pop(source, None)
        if (left := seconds(answer.values, "seconds")) > 0:
            self._until[source] = now + left
            if len(self._until) > MAX_SOURCES:
                self._until.popitem(last=False)
        return left

    def failed(self, address: str, now: float) -> None:
        """As LoginLimiter.failed()."""
        self._channel.tell("login_failed", {"address": address})
