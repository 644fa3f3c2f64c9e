"""A server to observe that is none: any number of sessions, whose numbers move."""

from __future__ import annotations

import time
from collections.abc import Iterator

from etherws.counters import Totals, Traffic, Values
from etherws.errors import NoSuchClient


class FakeServer:
    """A Subject (etherws/observe/subject.py) with so many sessions and parked ports. What it was told is in `told`."""

    role = "server"

    def __init__(self, sessions: int = 3, parked: int = 1) -> None:
        self.began = time.time()
        self.count, self.kept = sessions, parked
        self.gone: set[int] = set()
        self.reason = ""
        self.told: list[tuple[object, ...]] = []

    def _carried(self, number: int) -> int:
        return int((time.time() - self.began) * 10_000 * (number % 7 + 1))

    def overview(self) -> Values:
        totals = Totals(joins=self.count + 5, leaves=5)
        for number in range(self.count):
            totals.sent.add(Traffic(2 * self._carried(number), self._carried(number) // 1000, 3))
            totals.received.add(Traffic(self._carried(number), self._carried(number) // 1000, 1))
        totals.drops.update({"queue late": 3, "address not allowed": 12})
        for value in (0.0004, 0.012, 0.3):
            totals.round_trip.add(value)
            totals.queue_delay.add(value)
        totals.loaded_round_trip.add(0.3)
        return {
            "schema": 1,
            "role": self.role,
            "name": "ethws0",
            "version": "2.0",
            "pid": 4711,
            "started": self.began,
            "now": time.time(),
            "state": "draining" if self.reason else "serving",
            "listen": "wss://*:443/",
            "device": "ethws0",
            "bridge": "br0",
            "certificate_expires": self.began + 90 * 86_400,
            "ports": {"in_use": self.count - len(self.gone), "parked": self.kept},
            "workers": [],
            "refusals": {"wrong password": 2},
            "warnings": [],
            "totals": totals.values(),
        }

    def totals(self) -> Values:
        return self.overview()["totals"]  # type: ignore[no-any-return]

    def sessions(self) -> Iterator[Values]:
        for number in range(self.count):
            if number not in self.gone:
                yield self.session(number)

    def session(self, number: int) -> Values:
        """The values of one session."""
        carried = self._carried(number)
        return {
            "identity": f"client-{number}" if number % 3 else None,
            "address": f"203.0.113.{number % 250}",
            "proxy": "198.51.100.1" if number % 5 == 0 else None,
            "device": f"ethws{number}",
            "index": number + 10,
            "bridge": "br0",
            "worker": None,
            "wire": 2,
            "features": ["v2", "mtu"],
            "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"},
            "peer_mtu": 1500,
            "congestion": "bbr",
            "since": self.began,
            "heard": 0.4,
            "round_trip": 0.012 * (number % 9 + 1),
            "loaded_round_trip": 0.03 if number % 4 else None,
            "sent": {"bytes": 2 * carried, "frames": carried // 1000, "super_frames": 3},
            "received": {"bytes": carried, "frames": carried // 1000, "super_frames": 1},
            "rates": {"sent": 160_000.0 * (number % 7 + 1), "received": 80_000.0 * (number % 7 + 1)},
            "drops": {"queue late": number % 4} if number % 4 else {},
            "queue": {"delay": 0.001 * (number % 5), "packets": number % 5, "bytes": 1500 * (number % 5)},
            "reconnects": number % 3,
            "macs": [f"02:00:00:00:{number // 256:02x}:{number % 256:02x}"],
            "policy": {"bridge": None, "rate_up": 10_000_000, "isolated": False},
        }

    def parked(self) -> Iterator[Values]:
        for number in range(self.kept):
            yield {
                "identity": f"lost-{number}",
                "address": "192.0.2.9",
                "device": f"ethws{500 + number}",
                "index": 900 + number,
                "bridge": "br0",
                "since": self.began,
                "until": self.began + 17.5,
                "left": self.began + 17.5 - time.time(),
                "macs": ["02:00:00:00:ff:01"],
                "policy": {"bridge": None, "isolated": False},
            }

    def history(self, index: int) -> Values:
        number = index - 10
        if number not in range(self.count) or number in self.gone:
            raise NoSuchClient(f"no client is on the interface with the index {index}; see 'etherws status'")
        rate, samples = 80_000.0 * (number % 7 + 1), range(120)
        return {
            "step": 5.0,
            "end": time.time(),
            "sent": [2 * rate * (1 + sample % 10 / 20) for sample in samples],
            "received": [rate * (1 + sample % 7 / 20) for sample in samples],
            "round_trip": [None if sample % 40 == 7 else 0.012 * (number % 9 + 1) for sample in samples],
            "queue_delay": [0.001 * (sample % 5) for sample in samples],
            "drops": [number % 4 if sample % 30 == 0 else 0 for sample in samples],
        }

    def not_ready(self) -> str:
        return self.reason

    def kick(self, client: str, seconds: float, door: str) -> list[str]:
        found = [number for number in range(self.count) if client in self.session(number).values()]
        if not found:
            raise NoSuchClient(f"no client is called {client!r}; see 'etherws status'")
        self.gone |= set(found)
        self.told.append(("kick", client, seconds, door))
        return [f"client-{number}" for number in found]

    def reload(self) -> None:
        self.told.append(("reload",))

    def stop(self) -> None:
        self.told.append(("stop",))

    def drain(self, seconds: float, door: str) -> None:
        self.reason = "it is draining"
        self.told.append(("drain", seconds, door))


class FakeClient(FakeServer):
    """A Subject that is connected, until it loses its server."""

    role = "client"

    def __init__(self) -> None:
        super().__init__(sessions=1, parked=0)
        self.link: Values = {
            "server": "wss://vpn.example/",
            "proxy": None,
            "last_error": None,
            "last_error_at": None,
            "last_error_kind": None,
            "next_attempt": None,
            "attempts": 0,
            "reconnects": 2,
        }

    def lose(self, kind: str) -> None:
        """Lose the server, by an error of this kind; it waits for its fourth attempt."""
        error = {"last_error": "no answer", "last_error_at": time.time(), "last_error_kind": kind}
        self.link |= {**error, "next_attempt": 4.5, "attempts": 3}
        self.gone, self.reason = {0}, "not connected: no answer"

    def overview(self) -> Values:
        values = super().overview()
        for key in ("listen", "certificate_expires", "ports", "workers", "refusals"):
            del values[key]
        return {**values, "state": "waiting" if self.gone else "connected", "link": dict(self.link)}

    def session(self, number: int) -> Values:
        values = super().session(number)
        del values["identity"]
        return {**values, "server": self.link["server"], "policy": None}
