"""All that is known of one session, of a parked port, or of a client's link: a line for each thing.

Pure. ``etherws status`` shows a client's link so, and with --client a server's client. Read next: status_table.py, the
many; docs/status.rst, what the values mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from etherws.cli.operate import troubles, units
from etherws.cli.operate.cells import enclosed, shown
from etherws.cli.operate.status_table import label, reasons

Values = Mapping[str, Any]

#: Columns for the name of a thing.
NAME = 12

#: Characters of an error: as an answer's, with the number of a refusal at its end (client/answer_text.py).
SENTENCE_MAX = 1000

#: Addresses of machines that are listed.
MACS_MAX = 16


def client_lines(status: Values) -> Iterator[str]:
    """A client: how its link is, and its session."""
    link, now = status["link"], status["now"]
    yield f"client {_word(status['name'])}: {_state(status)}"
    if link.get("last_error"):
        yield _line(
            "last error", f"{_sentence(link['last_error'])} ({units.duration(now - link['last_error_at'])} ago)"
        )
    for warning in status.get("warnings", []):
        yield _line("!", _sentence(warning))
    if status["state"] != "connected":
        wait = link.get("next_attempt")
        soon = "" if wait is None else f"; the next one in {units.duration(wait)}"
        yield _line("attempts", f"{units.number(link['attempts'])} so far{soon}")
    if link.get("proxy"):
        yield _line("proxy", _word(link["proxy"]))
    yield _line("reconnects", units.number(link["reconnects"]))
    yield _line("process", f"{_word(status['pid'])}, version {_word(status['version'])}, for {_age(status)}")
    if not status["sessions"]:
        bridge = f" in {_word(status['bridge'])}" if status.get("bridge") else ""
        yield _line("interface", f"{_word(status['device'])}{bridge}")
    for session in status["sessions"]:
        yield from _session(session, now, own=True)


def session_lines(session: Values, now: float) -> Iterator[str]:
    """A client of a server. `now` is when the status was taken."""
    yield f"client {enclosed(label(session))}"
    if session.get("reconnects"):
        yield _line("reconnects", units.number(session["reconnects"]))
    yield from _session(session, now)


def parked_lines(port: Values, now: float) -> Iterator[str]:
    """A port that is kept for a client that was lost."""
    yield f"client {enclosed(label(port))}: lost {units.duration(now - port['since'])} ago"
    yield _line("removed in", units.duration(port["left"]))
    yield _line("address", _word(port["address"]))
    yield from _place(port)


def _session(each: Values, now: float, *, own: bool = False) -> Iterator[str]:
    for trouble in troubles.of_session(each):
        yield _line("!", trouble)
    if each.get("address"):
        proxy = f" by the proxy {_word(each['proxy'])}" if each.get("proxy") and not own else ""
        yield _line("address", f"{_word(each['address'])}{proxy}")
    yield _line("connected", f"{units.duration(now - each['since'])}, since {units.moment(each['since'])}")
    if each.get("heard") is not None:
        yield _line("heard", f"{units.duration(each['heard'])} ago")
    loaded = each.get("loaded_round_trip")
    under = "" if loaded is None else f"; under load {units.delay(loaded)}"
    yield _line("round trip", f"{units.delay(each.get('round_trip'))}{under}")
    queue = each["queue"]
    waiting = (
        f"; {units.number(queue['packets'])} packets wait, {units.size(queue['bytes'])}" if queue["packets"] else ""
    )
    yield _line("queue", f"{units.delay(queue['delay'])}{waiting}")
    for way in ("sent", "received"):
        yield _line(way, _traffic(each[way], each["rates"][way]))
    yield _line("dropped", reasons(each["drops"]) or "nothing")
    yield _line("wire", f"version {_word(each['wire'])}" if each.get("wire") else "-")
    if each.get("features"):
        yield _line("features", ", ".join(map(_word, each["features"])))
    tls = each.get("tls")
    yield _line("TLS", f"{_word(tls['version'])}, {_word(tls['cipher'])}" if tls else "no")
    if each.get("congestion"):
        yield _line("congestion", _word(each["congestion"]))
    if each.get("worker") and not each.get("connections"):
        yield _line("worker", _word(each["worker"]))
    for one in each.get("connections") or []:
        yield _connection(one, now)
    yield from _place(each)


def _connection(one: Values, now: float) -> str:
    """One of several by which a client is there."""
    heard = "" if one.get("heard") is None else f", heard {units.duration(one['heard'])} ago"
    rates = one.get("rates")
    carries = f", {units.bit_rate(rates['sent'])} sent, {units.bit_rate(rates['received'])} received" if rates else ""
    since = "" if one.get("since") is None else f"; for {units.duration(now - one['since'])}"
    worker = f", worker {_word(one['worker'])}" if one.get("worker") else ""
    trip = f"round trip {units.delay(one.get('round_trip'))}"
    return _line(f"conn. {units.number(one['member'])}", f"{trip}{heard}{carries}{since}{worker}")


def _place(each: Values) -> Iterator[str]:
    """Where its interface is, what is behind it, and what the policy says."""
    bridge = f" in {_word(each['bridge'])}" if each.get("bridge") else ""
    yield _line("interface", f"{_word(each['device'])}{bridge}, index {_word(each['index'])}")
    macs = [_word(mac) for mac in each["macs"][:MACS_MAX]]
    more = len(each["macs"]) - len(macs) + each.get("macs_more", 0)
    known = ", ".join(macs) + (f" and {units.number(more)} more" if more else "")
    yield _line("machines", known or "none seen")
    if policy := each.get("policy"):
        rules = [f"{_word(name)} {_value(value)}" for name, value in policy.items() if value not in (None, [], False)]
        yield _line("policy", ", ".join(rules) or "nothing is forbidden")


def _state(status: Values) -> str:
    link = status["link"]
    server = _word(link["server"])
    if status["state"] == "connected":
        return f"connected to {server}"
    return f"{_word(status['state'])}; not connected to {server}"


def _traffic(carried: Values, rate: float) -> str:
    single, large = units.number(carried["frames"]), units.number(carried["super_frames"])
    return f"{units.bit_rate(rate)} now; {units.size(carried['bytes'])} in {single} frames and {large} super-frames"


def _age(status: Values) -> str:
    return units.duration(status["now"] - status["started"])


def _value(value: object) -> str:
    if value is True:
        return "yes"
    return " ".join(map(_word, value)) if isinstance(value, list) else _word(value)


def _sentence(text: object) -> str:
    return enclosed(shown(text, SENTENCE_MAX))


def _word(text: object) -> str:
    return enclosed(shown(text))


def _line(name: str, text: str) -> str:
    return f"  {name:<{NAME}}{text}"
