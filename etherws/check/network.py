"""The path to a server, step by step, as ``etherws client`` would go it. It joins no LAN, and needs no root.

Each step is a generator of findings that returns what the next step needs; a step that fails ends the check. Each has a
limit of time, whatever the other side does. Read next, in the order of the steps: check/path/proxies.py,
check/path/names.py, check/path/tcp.py, check/path/secure.py, check/path/answers.py, check/path/measure.py,
check/path/idle.py, check/path/clock.py; check/path/trace.py, which is one attempt of the client's.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import gevent

from etherws import features
from etherws.check.findings import Finding, Verdict
from etherws.check.path import answers, clock, path_findings, proxies, secure
from etherws.check.path.idle import idle
from etherws.check.path.measure import measure
from etherws.check.path.names import names
from etherws.check.path.said import failed
from etherws.check.path.secure import Secured
from etherws.check.path.tcp import reachable
from etherws.check.path.trace import Seen, Target, server
from etherws.client.dial import look_up
from etherws.client.late_refusal import late_refusal
from etherws.client.proxy_choice import Proxy
from etherws.close_codes import CloseCode
from etherws.errors import ConnectError, ConnectionClosed, NotAdmitted, ProtocolError, SettingsError
from etherws.tunnel.connection import Connection

#: Seconds in which a connection that is cut right after its 101 shows it.
CUT_AFTER_101 = 1.0

#: Seconds to look for the server without the proxy: where there is a proxy, mostly nothing answers.
DIRECT_TIMEOUT = 2.0

_CUT = (
    "a firewall or proxy between lets the upgrade pass and cuts what follows, as it is no HTTP: use wss://, or have it"
    " allow WebSockets to this server"
)


def network(target: Target) -> Iterator[Finding]:
    """What was found on the way to the server. Raises SettingsError if a file that an option names cannot be used."""
    try:
        proxy = yield from proxies.chosen(target)
    except SettingsError:
        return
    good = yield from _reached(target, proxy)
    if not good:
        return
    at: list[Secured] = [Secured(address) for address in good]
    if target.uri.secure:
        at = yield from secure.secured(target, good, proxied=proxy is not None)
        if proxy:
            yield from _compared(target, at)
        if not at:
            yield from _clock(target, good[0], None, None)
            return
    yield from _upgraded(target, at[0])


def _reached(target: Target, proxy: Proxy | None) -> Generator[Finding, None, list[Any]]:
    """TCP: to the server, or to the proxy and through it. Return the addresses that are good for it."""
    uri, choice = target.uri, target.proxy_choice
    what = "the server"
    host, port = choice.connect_to or (f"{uri.host}%{uri.zone}" if uri.zone else uri.host, uri.port)
    if proxy:
        what, host, port = "the proxy", proxy.host, proxy.port
    addresses = yield from names(host, port, choice.family, target.timeout, what)
    good = (yield from reachable(addresses, target.timeout, what)) if addresses else []
    if not proxy:
        return good
    for address in good:
        if (yield from proxies.through(target, proxy, address)):
            # The proxy looks for the server's address; which one it takes is not to be seen.
            return [address]
    return []


def _compared(target: Target, at: list[Secured]) -> Iterator[Finding]:
    """Look whether the server shows another certificate without the proxy, if it can be reached so."""
    if not at:
        return
    choice = replace(target.proxy_choice, proxy="")
    bare = replace(target, proxy_choice=choice, timeout=min(target.timeout, DIRECT_TIMEOUT))
    try:
        with gevent.Timeout(bare.timeout, ConnectError("too slow")):
            address = look_up(target.uri.host, target.uri.port)[0]
        direct = Secured(address)
        server(bare, address, direct.seen).reach().close()
    except ConnectError:
        # Most often there is no way out but the proxy; nothing is wrong with that.
        return
    yield from secure.compared(at[0], direct)


def _upgraded(target: Target, at: Secured) -> Iterator[Finding]:
    """HTTP, the login, and what follows the 101."""
    seen, sent = Seen(), bool(target.credentials)
    connection: Connection | None = None
    error: ConnectError | None = None
    try:
        connection = server(target, at.address, seen, kind=features.CHECK, segment=at.segment).connect()
    except ConnectError as exc:
        error = exc
    known = (yield from answers.answered(seen.answer, seen.body)) if seen.answer else []
    if error:
        if seen.answer is None or seen.agreement is not None:
            yield _unanswered(target, error)
        else:
            yield answers.refused(error, seen.answer, seen.body, known, secure=target.uri.secure, sent=sent)
    elif connection and seen.agreement:
        yield from answers.agreed(seen.agreement, seen.features(), known, sent=sent, newest=target.device.wire)
        if seen.agreement.mtu is not None:
            yield path_findings.mtus(seen.agreement.mtu, target.device.mtu)
        yield from _measured(target, at, connection, seen)
    yield from _clock(target, at.address, seen, at.segment)


def _unanswered(target: Target, error: ConnectError) -> Finding:
    """The finding for an upgrade request without an HTTP answer, or for a refusal after the 101."""
    if isinstance(error, NotAdmitted):
        return failed("login", error)
    if str(error).startswith("no answer within"):
        hint = "what listens there takes the request and says nothing: does it run, and does a proxy wait for etherws?"
        return failed("http", error, hint=hint)
    if "reset" in str(error).lower():
        hint = "a firewall between forbids WebSockets, or the port is another program's"
        hint += "" if target.uri.secure else ": use wss://, which it cannot look into"
        return failed("http", error, hint=hint)
    return failed("http", error)


def _measured(target: Target, at: Secured, connection: Connection, seen: Seen) -> Iterator[Finding]:
    """What follows the 101, on a connection that is closed at the end."""
    checks = features.check_of(seen.features()) == features.CHECK
    try:
        if checks:
            yield from measure(connection)
        else:
            _wait_for_cut(connection)
            hint = "the server is older than etherws 2.0, or is another program"
            yield Finding("measuring", "the server does not offer to measure the path", Verdict.SKIPPED, hint)
    except (ConnectionClosed, ProtocolError) as exc:
        yield _cut(exc)
        return
    finally:
        connection.close(CloseCode.NORMAL)
    if target.idle and checks:
        yield from idle(lambda: _idle_connection(target, at), target.idle)
    elif target.idle:
        yield Finding("idle", "not looked at: the server does not offer it", Verdict.SKIPPED)


def _wait_for_cut(connection: Connection) -> None:
    """Raise ConnectionClosed if the connection ends within CUT_AFTER_101. No frame is sent, and none is delivered."""
    with contextlib.suppress(TimeoutError), gevent.Timeout(CUT_AFTER_101, TimeoutError()):
        while True:
            connection.recv()


def _cut(end: ConnectionClosed | ProtocolError) -> Finding:
    if late := late_refusal("", end):
        return failed("login" if isinstance(late, NotAdmitted) else "server", late)
    if isinstance(end, ConnectionClosed) and end.code is not None:
        return failed("after 101", f"the server has closed the connection: {end}; the server's log has the reason")
    return failed("after 101", end, before="the connection ended right after the 101: ", hint=_CUT)


def _idle_connection(target: Target, at: Secured) -> Connection:
    seen = Seen()
    connection = server(target, at.address, seen, kind=features.IDLE, segment=at.segment).connect()
    if features.check_of(seen.features()) != features.IDLE:
        connection.close(CloseCode.NORMAL)
        raise ConnectError("the server does not know this kind of check")
    return connection


def _clock(target: Target, address: Any, seen: Seen | None, segment: int | None) -> Iterator[Finding]:
    ahead = clock.difference(seen.answer, seen.answered_at) if seen and seen.answer else None
    if ahead is None:
        ahead = clock.asked(target, address, segment)
    if ahead is None:
        yield Finding("clock", "not compared: no answer had a date", Verdict.SKIPPED)
    else:
        yield clock.judged(ahead)
