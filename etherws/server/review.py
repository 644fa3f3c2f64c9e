"""Clients that are in already: whether each would still be let in, and with which rules, after a file has changed.

Once a second, while there are clients, Review looks at the files of passwords, tokens, certificates and rules. It ends
the sessions of those who would not be let in any more, and gives new rules to the others while their sessions run. A
file that cannot be used changes nothing. Review also logs the clients' counters. Read next: authenticate.py, which
judges, ports.py, which applies rules; reloadable.py.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import gevent

from etherws.access.policy import Policy, Profile
from etherws.close_codes import CloseCode
from etherws.errors import ConnectionClosed, DeviceError, EtherwsError
from etherws.events import RELOAD, event
from etherws.log_limit import LogLimit
from etherws.reloadable import Reloadable
from etherws.server.authenticate import Admission, Authenticator
from etherws.server.port import State, place_of
from etherws.server.ports_api import PortApi, PortsApi, link_of
from etherws.tunnel.session import Session
from etherws.walks import TURN_SECONDS, in_turns, pause

log = logging.getLogger(__name__)

#: Seconds between two looks at the files. A look takes microseconds if nothing has changed.
INTERVAL = 1.0

#: After a turn, the review pauses so many times as long as the turn took: frames come before it. To judge a thousand
#: certificates takes 0.2 s, and so 0.8 s with the pauses; to replace the rules of a port takes the kernel 20 ms.
JUDGE_PAUSE, APPLY_PAUSE = 3, 1


@dataclass(eq=False)
class Guest:
    """A client that has a port: by what it was let in, and its session, None before it runs."""

    port: PortApi
    admission: Admission
    session: Session | None = None
    #: What was in the files when the client was last judged; None before.
    judged_by: Sequence[object] | None = None
    #: The profile that it should have.
    wanted: Profile | None = None

    def end(self, reason: EtherwsError) -> None:
        """Have the session end. The port is then free."""
        if self.session:
            self.session.end(reason)


class Review:
    """Keeps the clients of one server to its files."""

    def __init__(
        self,
        authenticator: Authenticator,
        policy: Reloadable[Policy],
        *,
        sleep: Callable[[float], object] = gevent.sleep,
    ) -> None:
        """`sleep` waits for so many seconds."""
        self._authenticator, self._policy, self._sleep = authenticator, policy, sleep
        self._guests: dict[PortApi, Guest] = {}
        self._ports: PortsApi | None = None
        self._files: list[object] = []
        self._loop: gevent.Greenlet[..., None] | None = None
        self._log = LogLimit(log)

    def add(self, ports: PortsApi, port: PortApi, admission: Admission) -> Guest:
        """A client has been given a port. Its session is to be set in the Guest that this returns."""
        self._ports = ports
        self._guests[port] = guest = Guest(port, admission)
        if self._loop is None:
            self._loop = gevent.spawn(self._run)
        return guest

    def session_on(self, port: PortApi) -> Session | None:
        """The session on a port; None if there is none."""
        guest = self._guests.get(port)
        return guest.session if guest else None

    def stop(self) -> None:
        """Look no more."""
        self._guests.clear()
        if self._loop:
            self._loop.kill()
            self._loop = None

    def look(self) -> None:
        """Look at the files; do what follows for each client, ends before new rules. Returns after INTERVAL seconds, or
        a little more, even if there is more to do: the next look goes on."""
        began = monotonic()
        policy = self._policy.get()
        if not _same(self._files, files := [policy, *self._authenticator.files()]):
            self._files = files
        ended = self._judge_all(policy, self._files)
        changed = set[object]()
        for guest in in_turns([guest for guest in self._guests.values() if _differs(guest)]):
            if monotonic() - began > INTERVAL:
                break
            if self._apply(guest):
                changed.add(link_of(guest.port))
        if ended or changed:
            log.info(
                "the files have changed: %d clients had to go, %d have other rules",
                ended,
                len(changed),
                extra=event(RELOAD, ended=ended, changed=len(changed)),
            )

    def log_counters(self) -> None:
        """Log a line for each session: how long it runs, what it has carried and dropped."""
        sessions = [(guest.port, guest.session) for guest in self._guests.values() if guest.session]
        log.info("%d sessions", len(sessions))
        for port, session in in_turns(sessions):
            counters = session.counters(port.filter.drops())
            log.info("%s on %s for %.0f s%s", port.client.label, port.tap.name, session.age, counters)

    def _run(self) -> None:
        while self._guests:
            self._sleep(INTERVAL)
            try:
                self.look()
            except Exception as exc:
                # The next look may succeed. Without this, nobody would ever be judged again.
                self._log.log(logging.ERROR, "review", "cannot judge the clients by the files: %r", exc)
        self._loop = None

    def _judge_all(self, policy: Policy, files: list[object]) -> int:
        """Judge all that were not judged by these files. Return how many clients had to go."""
        judged, ended = 0, set[object]()
        contexts: dict[object, object] = {}
        pause()
        turn = monotonic()
        for port, guest in list(self._guests.items()):
            if port.state not in (State.IN_USE, State.PARKED):
                if self._guests.get(port) is guest:
                    del self._guests[port]
                continue
            if port.state is State.IN_USE and guest.session is None:
                continue
            judged_by = files
            if certificate := guest.admission.certificate:
                context = contexts.get(certificate.contexts) or contexts.setdefault(
                    certificate.contexts, certificate.contexts.get()
                )
                judged_by = [*files, context, time.time() >= certificate.ends()]
            # Nearly always it is the very same list.
            if guest.judged_by is not judged_by and not _same(guest.judged_by, judged_by):
                judged += 1
                if self._judge(guest, policy, judged_by):
                    ended.add(link_of(port))
            if (took := monotonic() - turn) > TURN_SECONDS:
                self._sleep(JUDGE_PAUSE * took)
                pause()
                turn = monotonic()
        return len(ended) + (self._end_surplus() if judged else 0)

    def _judge(self, guest: Guest, policy: Policy, judged_by: Sequence[object]) -> bool:
        """Whether this client had to go."""
        profile = policy.profile(guest.admission.identity)
        problem = self._authenticator.problem(guest.admission)
        if problem is None and not profile.connect:
            problem = ConnectionClosed("the policy does not let it connect any more", CloseCode.POLICY_VIOLATION)
        if problem is None and place_of(profile) != place_of(guest.port.profile):
            # It may come back at once, and then gets another port.
            problem = ConnectionClosed("the policy changed its bridge, device or MTU", CloseCode.SERVICE_RESTART)
        if problem is None:
            guest.judged_by, guest.wanted = judged_by, profile
            return False
        # It stays among the guests until its port is free, and is judged again if something else was faster.
        self._dismiss(guest, problem)
        return True

    def _end_surplus(self) -> int:
        """Of clients that have more ports than their identity may have now, end those that Ports.take() would take: a
        parked one rather than one in use, and of these the oldest. Return how many."""
        of_identity: dict[str, dict[object, list[Guest]]] = defaultdict(lambda: defaultdict(list))
        for guest in self._guests.values():
            if guest.admission.identity and guest.wanted:
                # All connections of a link have one port.
                of_identity[guest.admission.identity][link_of(guest.port)].append(guest)
        ended = 0
        for clients in of_identity.values():
            of_each = sorted(clients.values(), key=_in_use_since)
            allowed = min(guest.wanted.connections for guests in of_each for guest in guests if guest.wanted)
            for guests in of_each[: max(0, len(of_each) - allowed)]:
                for guest in guests:
                    # Not counted again while it ends.
                    guest.wanted = None
                    reason = ConnectionClosed("the policy allows fewer connections", CloseCode.POLICY_VIOLATION)
                    self._dismiss(guest, reason)
                ended += 1
        return ended

    def _apply(self, guest: Guest) -> bool:
        """Give a client the profile that it should have; return whether it is another one."""
        port, profile = guest.port, guest.wanted
        if profile is None or not _differs(guest) or port.state not in (State.IN_USE, State.PARKED):
            return False
        assert self._ports
        began = monotonic()
        try:
            if guest.session and port.profile.rate_up != profile.rate_up:
                guest.session.limit_rate(port.pacer(profile.rate_up) if profile.rate_up else None)
            self._ports.apply(port, profile)
        except DeviceError as exc:
            log.error("%s; its client has to go", exc)
            self._dismiss(guest, exc)
        self._sleep(APPLY_PAUSE * (monotonic() - began))
        return True

    def _dismiss(self, guest: Guest, reason: EtherwsError) -> None:
        """End the session, or free the port that is kept for it."""
        if guest.port.state is not State.PARKED:
            guest.end(reason)
            return
        assert self._ports
        try:
            self._ports.free(guest.port)
        except DeviceError as exc:
            log.error("%s", exc)


def _in_use_since(guests: Sequence[Guest]) -> tuple[bool, float]:
    """Whether the port that these have is in use by any, and since when: for the order in which clients are ended."""
    in_use = any(guest.port.state is State.IN_USE for guest in guests)
    return in_use, min(guest.port.since for guest in guests)


def _differs(guest: Guest) -> bool:
    """Whether the client has another profile than it should have."""
    return guest.wanted is not None and guest.wanted is not guest.port.profile and guest.wanted != guest.port.profile


def _same(before: Sequence[object] | None, now: Sequence[object]) -> bool:
    """Whether these are the same objects. To compare what is in them would take long."""
    return before is not None and len(before) == len(now) and all(map(lambda a, b: a is b, before, now))
