"""This machine's clock beside the server's, by the header Date of an HTTP answer.

A wrong clock makes good certificates invalid, and no log fits the other's. A 101 of etherws has no Date; then this asks
for one by a plain request, without credentials. Read next: check/network.py, the caller. Source: RFC 9110, section
6.6.1.
"""

from __future__ import annotations

import contextlib
import datetime
import re
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any

import gevent

from etherws import __version__
from etherws.addresses import authority
from etherws.check.findings import Finding, Verdict
from etherws.check.path.trace import Seen, Target, server
from etherws.client.credentials import Credentials
from etherws.client.http_answer import HttpAnswer, read_answer
from etherws.errors import ConnectError
from etherws.settings import Trust

#: Seconds that the clocks may differ: the header has whole seconds, and the answer takes its time.
TOLERANCE = 5.0

#: Seconds from which on certificates and tokens of others may be taken for invalid.
TOO_MUCH = 60.0


def difference(answer: HttpAnswer, now: datetime.datetime) -> float | None:
    """How many seconds the server's clock is ahead of `now`, when the answer came; None if it does not say."""
    try:
        date = parsedate_to_datetime(answer.value("Date"))
    except (ValueError, TypeError, OverflowError):
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.timezone.utc)
    # A cache says how old its answer is (RFC 9111, section 5.1).
    age = answer.value("Age")
    return (date - now).total_seconds() + (int(age) if re.fullmatch("[0-9]{1,9}", age) else 0)


def judged(seconds: float) -> Finding:
    """What a difference of so many seconds means; it is above zero if the server's clock is ahead."""
    data = {"ahead": round(seconds, 1)}
    if abs(seconds) <= TOLERANCE:
        return Finding("clock", "this machine's clock and the server's agree", data=data)
    way = "behind" if seconds > 0 else "ahead of"
    text = f"this machine's clock is {span(abs(seconds))} {way} the server's"
    hint = "one of them is wrong: compare date -u on both, and switch NTP on (timedatectl set-ntp true)"
    return Finding("clock", text, Verdict.WARNING if abs(seconds) >= TOO_MUCH else Verdict.NOTE, hint, data)


def span(seconds: float) -> str:
    """A length of time, in the unit that fits."""
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def asked(target: Target, address: Any, segment: int | None = None) -> float | None:
    """The difference by a plain request for "/", without credentials and whoever answers; None if nobody says."""
    bare = replace(target, trust=Trust(insecure=True, sni=target.trust.sni), credentials=Credentials(), headers=())
    with contextlib.suppress(ConnectError, OSError, gevent.Timeout), gevent.Timeout(target.timeout):
        stream = server(bare, address, Seen(), segment=segment).reach()
        try:
            host = authority(target.uri.host, target.uri.port)
            lines = ["HEAD / HTTP/1.1", f"Host: {host}", f"User-Agent: etherws/{__version__}", "Connection: close"]
            stream.sendall("\r\n".join([*lines, "", ""]).encode())
            answer = read_answer(stream.recv, hint="", exact=False)
        finally:
            stream.close()
        return difference(answer, datetime.datetime.now(datetime.timezone.utc))
    return None
