"""TLS with each good address: version, ALPN, the chain of certificates, and what is wrong with them.

The handshake and the words of its errors are the client's (client/attempt.py, client/tls_refusals.py). Here is added
who intercepts, when certificates end, whether large packets are lost on the way, and how old a server's TLS is. Read
next: access/interception.py; check/network.py, the caller.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import gevent

from etherws.access import interception
from etherws.access.certificate_facts import Facts
from etherws.check.findings import Finding, Verdict
from etherws.check.path.said import failed
from etherws.check.path.tcp import SMALL_SEGMENT, open_to, shown
from etherws.check.path.trace import Seen, Target, server
from etherws.client.uris import tls_name
from etherws.errors import ConnectError, NotAdmitted, some_of
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tls import TlsStream

#: Days before its end from which on a certificate is worth a warning. ACME clients renew 30 days before the end.
ENDS_SOON = 14

#: Names of a certificate that a line shows.
_NAMES_MAX = 4

#: Seconds to wait for an alert after the handshake: more than one round trip of most paths.
LISTEN = 0.5

_BLACK_HOLE = (
    "large packets are lost on the way, and nobody tells the sender (a path MTU black hole): let the firewalls pass"
    " ICMP type 3 (IPv6: type 2), or lower the MTU of the interface towards the server: ip link set dev eth0 mtu 1400"
)
_INTERCEPTED = (
    "have whoever runs it leave this server out; or trust it: name its authority by --cacert. To be sure that the"
    " server is yours, give --pinnedpubkey with the server's own key"
)


@dataclass
class Secured:
    """TLS with one address: what was seen, the error if it has failed, and the size of segments that it took."""

    address: Any
    seen: Seen = field(default_factory=Seen)
    error: ConnectError | None = None
    segment: int | None = None

    @property
    def chain(self) -> list[Facts]:
        """The server's certificates."""
        return self.seen.chain()


def secured(target: Target, addresses: Sequence[Any], proxied: bool) -> Generator[Finding, None, list[Secured]]:
    """Do TLS with all `addresses` of the server, or with the server through a proxy that is at the only one. Return
    those that have done it."""
    greenlets = [gevent.spawn(_secure, target, address) for address in addresses]
    try:
        found: list[Secured] = [greenlet.get() for greenlet in greenlets]
    finally:
        gevent.killall(greenlets)
    # Most often all addresses are the same server.
    groups: dict[tuple[Any, ...], list[Secured]] = {}
    for each in found:
        key = (str(each.error), [facts.pin for facts in each.chain], each.seen.tls_version(), each.segment)
        groups.setdefault((repr(key),), []).append(each)
    for group in groups.values():
        where = "through the proxy" if proxied else some_of([shown(each.address) for each in group], 4)
        yield from _findings(target, group[0], where, others=len(groups) > 1, proxied=proxied)
    return [each for each in found if each.error is None]


def _secure(target: Target, address: Any) -> Secured:
    found = _attempt(target, address, None)
    if found.error and _is_silence(found.error) and not found.seen.tls_version()[0]:
        # TCP was connected a moment ago. If small packets pass, the large ones are lost.
        small = _attempt(target, address, SMALL_SEGMENT)
        if small.error is None or not _is_silence(small.error):
            return small
    return found


def _attempt(target: Target, address: Any, segment: int | None) -> Secured:
    found = Secured(address, segment=segment)
    try:
        server(target, address, found.seen, segment=segment).try_to_reach(LISTEN)
    except ConnectError as exc:
        found.error = exc
    return found


def _is_silence(error: ConnectError) -> bool:
    return str(error).startswith("no answer within")


def _findings(
    target: Target, found: Secured, where: str, *, others: bool, proxied: bool
) -> Generator[Finding, None, None]:
    seen, chain = found.seen, found.chain
    version, cipher = seen.tls_version()
    data = {
        "address": shown(found.address),
        "version": version or None,
        "cipher": cipher or None,
        "alpn": seen.alpn(),
    }
    if found.segment:
        text = f"{where}: TLS works only with packets of {found.segment} bytes or less"
        yield Finding("path mtu", text, Verdict.FAILED, _BLACK_HOLE, {"segment": found.segment})
    if found.error:
        yield _failed(target, found, where, data, proxied)
    else:
        alpn = f", {seen.alpn()}" if seen.alpn() else ", the server has no ALPN"
        yield Finding("tls", f"{where}: {version}, {cipher}{alpn}", data=data)
    if chain:
        yield from certificate(target, chain, found.error, where if others else "")


def _failed(target: Target, found: Secured, where: str, data: dict[str, Any], proxied: bool) -> Finding:
    assert found.error is not None
    data["error"] = str(found.error)
    if _is_silence(found.error):
        hint = (
            "TCP is connected, but the server's TLS says nothing: a firewall between lets TCP pass and drops TLS by"
            " its server name (SNI), or what listens there hangs"
        )
        return failed("tls", found.error, before=f"{where}: ", hint=hint, data=data)
    if "no TLS 1.2 or later" in str(found.error) and not proxied and (version := oldest(target, found.address)):
        data["version"] = version
        happened = f"{where}: the server speaks {version} at most, and etherws TLS 1.2 at least"
        return Finding("tls", happened, Verdict.FAILED, "update the server's TLS, or the proxy's before it", data)
    if "ended TCP without" in str(found.error) or "reset" in str(found.error).lower():
        hint = "a firewall that forbids TLS to this name does that, and so does a port of another kind"
        return failed("tls", found.error, before=f"{where}: ", hint=hint, data=data)
    topic = "login" if isinstance(found.error, NotAdmitted) else "tls"
    return failed(topic, found.error, before=f"{where}: ", data=data)


def certificate(
    target: Target, chain: Sequence[Facts], error: ConnectError | None, where: str
) -> Generator[Finding, None, None]:
    """What the server's `chain` says; its `error` is shown already. `where` is the address, if others differ."""
    now = datetime.datetime.now(datetime.timezone.utc)
    own = chain[0]
    days = (own.ends - now).days
    data = {
        "chain": [
            {
                "subject": each.subject,
                "issuer": each.authority,
                "begins": each.begins.isoformat(),
                "ends": each.ends.isoformat(),
            }
            for each in chain
        ],
        "names": list(own.names[:50]),
        "days_left": days,
        "pin": own.pin,
    }
    names = some_of(own.names, _NAMES_MAX) or own.subject
    text = f"{where and where + ': '}for {names}, by {own.issuer!r}, ends at {own.ends:%Y-%m-%d} ({days} days)"
    issuers = [each.authority for each in chain]
    if error is None and days < ENDS_SOON:
        hint = "renew it on the server; with ACME, the server's renewal does not run"
        yield Finding("certificate", text, Verdict.WARNING, hint, data)
    elif error is None and target.trust.insecure:
        hint = "--insecure: nobody has verified it" if not target.trust.pins else ""
        yield Finding("certificate", text, Verdict.NOTE, hint, data)
    else:
        yield Finding("certificate", text, Verdict.OK if error is None else Verdict.NOTE, "", data)
    yield from _intercepted(target, chain, issuers, error)


def _intercepted(
    target: Target, chain: Sequence[Facts], issuers: list[str], error: ConnectError | None
) -> Generator[Finding, None, None]:
    data = {"issuers": issuers, "product": interception.product(issuers) or None, "pin": chain[0].pin}
    if data["product"]:
        text = f"{data['product']} intercepts TLS: it has made this certificate, and reads all that passes"
        yield Finding("interception", text, Verdict.WARNING if error is None else Verdict.FAILED, _INTERCEPTED, data)
    elif (
        error is None and not target.trust.cacert and not target.trust.insecure and not interception.is_public(issuers)
    ):
        text = f"this machine's store trusts {chain[-1].issuer!r}, which is none of the usual public authorities"
        hint = (
            "is it your firm's own? Then the certificate may be the server's, or one that its firewall has made. To be"
            f" sure, compare the key with the server's: --pinnedpubkey {chain[0].pin}"
        )
        yield Finding("interception", text, Verdict.NOTE, hint, data)


def compared(through_proxy: Secured, direct: Secured) -> Generator[Finding, None, None]:
    """Say if the server shows another certificate through the proxy than without it."""
    there, here = through_proxy.chain[:1], direct.chain[:1]
    if there and here and there[0].pin != here[0].pin:
        text = f"through the proxy the certificate is by {there[0].issuer!r}, without it by {here[0].issuer!r}"
        hint = f"the proxy intercepts TLS, or the name means another server inside this network: {_INTERCEPTED}"
        yield Finding("interception", text, Verdict.WARNING, hint, {"pins": [there[0].pin, here[0].pin]})


def oldest(target: Target, address: Any) -> str:
    """The version of TLS that a server speaks which has none of ours; empty if it has none at all. Nothing is sent
    over that connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    # Only to name the version: what is as old as that needs ciphers and keys that are as weak.
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        with gevent.Timeout(target.timeout, TimeoutError()):
            stream = PlainStream(open_to(address))
            try:
                tls = TlsStream(stream, context, server_hostname=tls_name(target.trust.sni or target.uri.host))
                tls.do_handshake()
                return (tls.tls_version() or ("", ""))[0]
            finally:
                stream.close()
    except OSError:
        return ""
