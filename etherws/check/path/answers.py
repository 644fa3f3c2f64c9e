"""The server's answer to the upgrade request: who has answered, what was lost on the way, who was let in.

The error's words are the client's (client/refusals.py). Here is added which hop is between, by its answer, which header
it has lost, and how that is mended. Pure. Read next: hops.py, own_words.py; check/network.py, the caller.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from etherws import features
from etherws.check.findings import Finding, Verdict
from etherws.check.path.hops import Hop, hops, marks
from etherws.check.path.own_words import DRAINING, ENDED, POLICY, is_etherws, lost, lost_authorization, no_check
from etherws.check.path.said import failed
from etherws.client.http_answer import HttpAnswer
from etherws.client.upgrade import Agreement
from etherws.errors import ConnectError

_PLAIN_HOP = (
    "something between changes plain HTTP and does not name itself, such as a transparent proxy: use wss://, which it"
    " cannot look into"
)
_HIDDEN_HOP = (
    "the proxy before etherws must pass Upgrade and Connection on, in HTTP/1.1; see docs/reverse-proxies.rst for nginx,"
    " HAProxy, Apache and Caddy"
)

_FULL = (
    "another client has its only interface, and it needs a bridge for more (--bridge); or end that client. Its log says"
    " what stands in the way of one more interface"
)

#: What version 1 costs (docs/performance.rst).
_VERSION_1_COSTS = "a message for each frame and no super-frames, so it is several times slower at high rates"


def answered(answer: HttpAnswer, body: bytes) -> Generator[Finding, None, list[Hop]]:
    """Say what the answer is, and which hops it has passed; return those that are known."""
    known = hops(answer, body)
    data = {
        "status": answer.status,
        "hops": [hop.name for hop in known],
        "server": answer.value("Server") or None,
        "via": answer.values("Via"),
        "etherws": is_etherws(body) or answer.status == 101,
    }
    by = marks(answer)
    text = f"answered {answer.status_text}" if answer.status else "the answer is not HTTP"
    text += f" ({by})" if by else ""
    if known:
        text += f"; on the way: {', then '.join(hop.name for hop in known)}"
    good = answer.status == 101
    yield Finding("http", text, Verdict.OK if good else Verdict.NOTE, "", data)
    return known


def refused(
    error: ConnectError, answer: HttpAnswer, body: bytes, known: Sequence[Hop], *, secure: bool, sent: bool
) -> Finding:
    """The finding for an answer that is no proper 101. `secure` is whether TLS was spoken, `sent` whether credentials
    were sent."""
    header = lost(body)
    data: dict[str, Any] = {"status": answer.status, "lost": header or None, "error": str(error)}
    if header:
        who = known[0].name if known else "a proxy on the way"
        text = f"etherws did not get {header}: {who} has dropped it"
        hint = _mends(known) or (_HIDDEN_HOP if secure else _PLAIN_HOP)
        return Finding("upgrade", text, Verdict.FAILED, hint, data)
    if lost_authorization(answer.status, body, sent):
        who = known[0].name if known else "a proxy on the way"
        text = f"etherws got no credentials, though they were sent: {who} has dropped the Authorization header"
        hint = "have it pass Authorization on; or log in by a client certificate"
        return Finding("login", text, Verdict.FAILED, hint, {**data, "lost": "Authorization"})
    if answer.status == 401:
        return _login(error, body, known, data, sent=sent)
    if answer.status in (403, 503) and no_check(body):
        hint = "the client is let in; measure another time" if answer.status == 503 else "the client is let in"
        return failed("measuring", error, hint=hint, verdict=Verdict.SKIPPED, data=data)
    if body.startswith(POLICY):
        hint = "the server's policy says connect = false for this client, or for all that it does not name (--policy)"
        return failed("policy", error, hint=hint, data=data)
    if body.startswith(ENDED):
        hint = "somebody has ended it by 'etherws kick' for a time: wait, or ask the operator"
        return failed("server", error, hint=hint, data=data)
    if body.startswith(DRAINING):
        hint = "connect to another server, or wait until this one has been started again"
        return failed("server", error, hint=hint, data=data)
    if answer.status == 403 and is_etherws(body):
        return failed("login", error, hint="use a certificate that holds, and has a name", data=data)
    for hop in known:
        mend = hop.statuses.get(answer.status or 0)
        if mend and not is_etherws(body):
            return failed("upgrade", error, before=f"{hop.name}: ", hint=mend, data=data)
    if answer.status == 101:
        return failed("upgrade", error, hint=_mends(known), data=data)
    if answer.status == 503 and b"no port is free" in body:
        return failed("server", error, hint=f"it is full: {_FULL}", data=data)
    return failed("server" if answer.status in (429, 503) else "upgrade", error, data=data)


def _login(error: ConnectError, body: bytes, known: Sequence[Hop], data: dict[str, Any], *, sent: bool) -> Finding:
    if not is_etherws(body):
        who = known[0].name if known else "something on the way, and not etherws,"
        hint = "give what it asks for by --user, or by --header; or have it let this path pass without"
        return failed("login", error, before=f"{who} asks for a login: ", hint=hint, data=data)
    if not sent:
        return failed("login", error, data=data)
    right = "is the name right, and the password? if so, " if "this user and password" in str(error) else ""
    hint = (
        f"{right}it may have been revoked, or is for another server: have the server's administrator make a new one, by"
        " etherws passwd"
    )
    return failed("login", str(error).removeprefix("answered 401 Unauthorized; "), hint=hint, data=data)


def _mends(known: Sequence[Hop]) -> str:
    return "; ".join(f"{hop.name}: {hop.upgrade}" for hop in known if hop.upgrade)


def agreed(
    agreement: Agreement, listed: features.Features, known: Sequence[Hop], *, sent: bool, newest: int = 2
) -> list[Finding]:
    """What a proper 101 means. `listed` are the features that the server has agreed to; `sent` is whether credentials
    were sent; `newest` is the highest version of the wire that was offered."""
    text = "the server has taken the credentials, or asks for none" if sent else "the server asks for no login"
    found = [Finding("login", text, data={"sent": sent})]
    if features.is_full(listed):
        found.append(Finding("server", "it has no port for one more client: it is full", Verdict.FAILED, _FULL))
    data = {"wire": agreement.version.number, "features": dict(listed), "doubt": agreement.doubt or None}
    if agreement.doubt:
        hint = "have it pass these headers on; without them the tunnel speaks version 1, which is slower"
        found.append(Finding("features", agreement.doubt, Verdict.WARNING, _mends(known) or hint, data))
    elif newest < 2:
        text = f"version 1 of the wire, as --wire 1 demands: {_VERSION_1_COSTS}"
        found.append(Finding("features", text, Verdict.NOTE, "leave out --wire 1", data))
    elif agreement.version.number == 1 and listed:
        # It has read our list, so no proxy has dropped that.
        text = f"version 1 of the wire, though the server knows version 2: {_VERSION_1_COSTS}"
        hint = (
            "start the server without --wire 1; or a proxy on the way drops Sec-WebSocket-Protocol: have it pass it on"
        )
        found.append(Finding("features", text, Verdict.NOTE, hint, data))
    elif agreement.version.number == 1:
        text = "version 1 of the wire: neither Etherws-Features nor Sec-WebSocket-Protocol came back"
        hint = (
            "the server is older, or runs with --wire 1, or is another program; if it is etherws 2, then a proxy on the"
            f" way drops both headers from the request. Version 1 has {_VERSION_1_COSTS}"
        )
        found.append(Finding("features", text, Verdict.NOTE, hint, data))
    else:
        names = ", ".join(name for name in listed if name != features.VERSION_2)
        found.append(Finding("features", f"version 2 of the wire{names and ', ' + names}", data=data))
    return found
