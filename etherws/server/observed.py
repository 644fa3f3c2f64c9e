"""What is shown of a server, and what it can be told: its ports, with the sessions on them, whoever runs these.

Fits observe/subject.py: Subject, which reads it; docs/status.rst describes the values. The ports are of this process;
where the sessions are, `inside` knows: own_sessions.py, or workers/workers_status.py. Read next: dismissal.py.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import lru_cache
from time import monotonic
from typing import Any, Protocol

from etherws import __version__
from etherws.access import certificates
from etherws.access.policy import Profile
from etherws.counters import Totals, Values
from etherws.errors import NoSuchClient
from etherws.kernel.bridge_tables import SHOWN, Behind, BridgeTables
from etherws.kernel.rule_counts import RuleCounts
from etherws.kernel.rules import table_name
from etherws.server.dismissal import Dismissal
from etherws.server.lan_warnings import LanWarnings
from etherws.server.member import Member
from etherws.server.port import Port, State
from etherws.server.ports import Ports
from etherws.server.wall_clock import WallClock
from etherws.tunnel import link_status

#: What a session's own part is as long as nobody has told it, such as of a worker that does not answer.
UNKNOWN: Values = {
    "members": 1,
    "connections": [],
    "wire": None,
    "features": [],
    "tls": None,
    "peer_mtu": None,
    "congestion": None,
    "heard": None,
    "round_trip": None,
    "sent": {"bytes": 0, "frames": 0, "super_frames": 0},
    "received": {"bytes": 0, "frames": 0, "super_frames": 0},
    "rates": {"sent": 0.0, "received": 0.0},
    "drops": {},
    "queue": {"delay": 0.0, "packets": 0, "bytes": 0},
}

_NOTHING = Behind(None, [], 0)

#: Profiles that are kept as they are shown, of 1 to 4 kB each. A policy has few.
PROFILES_MAX = 256


@dataclass
class Counted:
    """What all processes of a server have counted together, also those that have ended."""

    totals: Totals = field(default_factory=Totals)
    #: How many clients were refused, by reason.
    refusals: Mapping[str, int] = field(default_factory=dict)
    #: Each worker: "pid", "sessions", and in "answers" whether it answers.
    workers: list[Values] = field(default_factory=list)


class Inside(Protocol):
    """Where the sessions are. Each method may block its greenlet for a second."""

    def count(self) -> Counted:
        """What was counted so far."""

    def workers(self) -> list[Values]:
        """As Counted.workers: without the rest, which takes a walk over all sessions."""

    def look(self) -> Callable[[Port | Member], Values]:
        """Ask once for all: what this returns gives the own part of the session on a port, with "worker"; without the
        rest if nobody has told it. A client with a link has a session on each Member."""

    def history(self, port: Port | Member) -> Values:
        """The last ten minutes of the session on a port. Raises NoSuchClient if there is none."""


@dataclass(frozen=True)
class About:
    """What is to be said of a server as a whole: `name` is the unit's instance, else the device; `listen` is where it
    listens, as a URI. `reload` is what SIGHUP does, and `stop` what SIGTERM does. `certificate` is the file of its
    certificate; None without TLS, or if another server has it."""

    name: str
    listen: str
    reload: Callable[[], object]
    stop: Callable[[], object]
    certificate: str | None = None


class ObservedServer:
    """A server with these ports."""

    role = "server"

    def __init__(self, ports: Ports, inside: Inside, about: About) -> None:
        self._ports, self._inside, self._about = ports, inside, about
        self._dismissal = Dismissal(ports)
        self._tables = BridgeTables(lambda: [port.tap.index for port in ports])
        self._warnings = LanWarnings(ports, self._tables, self._look)
        self._rules = RuleCounts()
        self._started = time.time()
        self._clock = WallClock()
        self._stopping = False

    def overview(self) -> Values:
        """As Subject.overview()."""
        counted = self._inside.count()
        first = self._ports.first.tap
        states = Counter(port.state for port in self._ports)
        return {
            "schema": 1,
            "role": self.role,
            "name": self._about.name,
            "version": __version__,
            "pid": os.getpid(),
            "started": self._started,
            "now": time.time(),
            "state": self._state(),
            "listen": self._about.listen,
            "device": first.present_name(),
            "bridge": self._tables.look().get(first.index, _NOTHING).bridge,
            "certificate_expires": certificates.expiry(certificate)
            if (certificate := self._about.certificate)
            else None,
            "ports": {"in_use": states[State.IN_USE], "parked": states[State.PARKED]},
            "workers": counted.workers,
            "refusals": dict(counted.refusals),
            "warnings": self._warnings.look(),
            "totals": self._totals(counted),
        }

    def totals(self) -> Values:
        """As Subject.totals()."""
        return self._totals(self._inside.count())

    def _totals(self, counted: Counted) -> Values:
        """What sessions have counted, and what the rules have dropped."""
        self._rules.look()
        totals = Totals(drops=Counter(self._rules.total))
        totals.merge(counted.totals.values())
        return totals.values()

    def sessions(self) -> Iterator[Values]:
        """As Subject.sessions()."""
        own, counts = self._look(), self._rules.look()
        for port, behind in self._with_tables(State.IN_USE):
            values = {
                **self._values_of(port, behind),
                "proxy": port.client.proxy or None,
                "reconnects": port.reconnects,
                **UNKNOWN,
                "since": self._clock.at(port.since),
                **own(port),
            }
            if port.filter.applied and (dropped := counts.get(table_name(port.filter.applied.name))):
                values["drops"] = dict(Counter(values["drops"]) + Counter(dropped))
            yield values

    def parked(self) -> Iterator[Values]:
        """As Subject.parked()."""
        for port, behind in self._with_tables(State.PARKED):
            yield {
                **self._values_of(port, behind),
                "since": self._clock.at(port.since),
                "until": self._clock.at(port.kept_until),
                "left": max(0.0, port.kept_until - monotonic()),
            }

    def history(self, index: int) -> Values:
        """As Subject.history()."""
        port = next((port for port in self._ports if port.state is State.IN_USE and port.tap.index == index), None)
        if port is None:
            raise NoSuchClient(f"no client is on the interface with the index {index}; see 'etherws status'")
        if not (members := list(port.members or ())):
            return self._inside.history(port)
        found = []
        for member in members:
            # One may have ended meanwhile, and another's worker may not answer.
            with contextlib.suppress(NoSuchClient):
                found.append(self._inside.history(member))
        if not found:
            raise NoSuchClient(f"nothing is told of the sessions on {port.tap.name}")
        return link_status.histories_together(found)

    def not_ready(self) -> str:
        """As Subject.not_ready()."""
        state = self._state()
        if state != "serving":
            return f"it is {state}"
        workers = self._inside.workers()
        if workers and not any(worker["answers"] for worker in workers):
            return "none of its workers answers"
        return ""

    def kick(self, client: str, seconds: float, door: str) -> list[str]:
        """As Subject.kick()."""
        return self._dismissal.kick(client, seconds, door)

    def reload(self) -> None:
        """As Subject.reload()."""
        self._about.reload()

    def stop(self) -> None:
        """As Subject.stop()."""
        self._stopping = True
        self._about.stop()

    def drain(self, seconds: float, door: str) -> None:
        """As Subject.drain()."""
        self._dismissal.drain(seconds, door)

    def _state(self) -> str:
        if self._stopping or self._ports.first.state is State.GONE:
            return "stopping"
        return "draining" if self._ports.gate.draining else "serving"

    def _look(self) -> Callable[[Port], Values]:
        """As Inside.look(), with the session of a link put together."""
        own = self._inside.look()

        def look(port: Port) -> Values:
            if not (members := port.members):
                return own(port)
            ended = members.parting
            parts = {member.membership.member: own(member) for member in members}
            together = link_status.together(parts, (ended.sent, ended.received, ended.drops))
            return {"worker": None, **together, "since": members.founded}

        return look

    def _with_tables(self, state: State) -> Iterator[tuple[Port, Behind]]:
        """The ports in this state, each with what is behind it, in the order of their indexes."""
        ports = sorted((port for port in self._ports if port.state is state), key=lambda port: port.tap.index)
        tables = self._tables.look()
        for port in ports:
            # Others went on meanwhile.
            if port.state is state:
                yield port, tables.get(port.tap.index, _NOTHING)

    def _values_of(self, port: Port, behind: Behind) -> Values:
        """What session and parked port have in common."""
        return {
            "identity": port.client.identity,
            "address": port.client.address,
            "device": port.tap.present_name(),
            "index": port.tap.index,
            "bridge": behind.bridge,
            "macs": behind.macs,
            "macs_more": behind.more,
            "policy": policy_values(port.profile),
        }


@lru_cache(PROFILES_MAX)
def policy_values(profile: Profile) -> Values:
    """A profile for JSON, not to be changed: most clients have the same. Of a list of addresses, SHOWN are in it at
    most, and their number."""
    values: dict[str, Any] = {}
    for each in fields(profile):
        value = getattr(profile, each.name)
        if isinstance(value, frozenset):
            shown = sorted(map(str, value))[:SHOWN]
            values[each.name] = shown
            if len(value) > SHOWN:
                values[f"{each.name}_more"] = len(value) - SHOWN
        else:
            values[each.name] = value
    del values["connect"]
    return values
