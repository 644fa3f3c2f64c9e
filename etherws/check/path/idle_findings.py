"""How long a silent connection lives on a path: which silences to try, and what their results mean.

Pure. Read next: idle.py, which tries them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from etherws.check.findings import Finding, Verdict

#: Seconds of silence that are tried: around the limits of the table below. The server has room for eight.
SILENCES = (20.0, 35.0, 55.0, 65.0, 105.0, 245.0, 355.0)

#: Limits that are usual, in seconds, and whose they are. Sources: the documentation of each.
USUAL = (
    (30.0, "Google Cloud's load balancer (timeout of the backend service)"),
    (50.0, "HAProxy (timeout client and timeout server, or timeout tunnel)"),
    (55.0, "Heroku's router"),
    (60.0, "nginx (proxy_read_timeout), AWS's application load balancer (idle timeout), Apache (ProxyTimeout)"),
    (100.0, "Cloudflare"),
    (240.0, "Azure's load balancer"),
    (350.0, "AWS's network load balancer or NAT gateway"),
)

#: The part of a limit by which the time that was found may be off.
NEAR = 0.08

#: Seconds between two pings by default (settings.py: DeviceSettings.ping_interval).
PINGS = 20.0


@dataclass(frozen=True)
class Lived:
    """One connection: for how many seconds it was silent, and whether it answered then. One that ended before has
    `ended`, the seconds after which it did, and `why`."""

    silence: float
    answered: bool
    ended: float | None = None
    why: str = ""


def silences(longest: float) -> list[float]:
    """The silences to try, in seconds; the last one is `longest`."""
    return [silence for silence in SILENCES if silence < longest] + [longest]


def idle_finding(results: Sequence[Lived]) -> Finding:
    """What the results of all connections say together."""
    alive = max((each.silence for each in results if each.answered), default=0.0)
    ended = min((each.ended for each in results if each.ended is not None), default=None)
    silent = min((each.silence for each in results if not each.answered and each.ended is None), default=None)
    cut = min((limit for limit in (ended, silent) if limit is not None), default=None)
    data = {
        "alive_seconds": alive,
        "cut_seconds": None if cut is None else round(cut, 1),
        "closed": cut is not None and cut == ended,
    }
    if cut is None:
        return Finding("idle", f"a silent connection lives for at least {alive:g} s", data=data)
    if cut == ended:
        why = next((each.why for each in results if each.ended == ended), "")
        found, at, text = (
            f"cut after about {cut:.0f} s of silence ({why})",
            cut,
            _usual(cut * (1 - NEAR), cut * (1 + NEAR)),
        )
    else:
        found, at = f"cut without a word between {alive:g} and {cut:g} s of silence", max(alive, cut / 2)
        text = _usual(alive, cut)
    ping = max(1, int(min(25.0, at / 2)))
    likely = f"; such a limit has {text}" if text else "; a proxy, a firewall or a NAT on the way has such a limit"
    if at > PINGS * 1.25:
        hint = f"pings keep it alive, each {PINGS:g} s by default: set no --ping-interval above {ping}s{likely}"
        return Finding("idle", found, Verdict.NOTE, hint, data)
    return Finding("idle", found, Verdict.WARNING, f"set --ping-interval {ping}s at both ends{likely}", data)


def _usual(least: float, most: float) -> str:
    """Whose limits are in this range."""
    return " or ".join(name for limit, name in USUAL if least <= limit <= most)
