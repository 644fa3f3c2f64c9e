"""One attempt to reach a server: TCP, TLS, and the WebSocket opening handshake up to the 101.

After the 101 the stream belongs to tunnel/connection.py, as on the server. Read next: dial.py, which makes the TCP
connection; upgrade.py, the opening handshake; reconnect.py, which says when to try.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import ssl
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import gevent

from etherws import features
from etherws.access import certificates, interception
from etherws.addresses import authority, canonical
from etherws.client.credentials import Credentials
from etherws.client.dial import Dialer
from etherws.client.error_body import error_body
from etherws.client.let_in import first_bytes
from etherws.client.network_errors import Step, described, no_answer
from etherws.client.offer import Offer
from etherws.client.proxy_choice import ProxyChoice
from etherws.client.refusals import refusal
from etherws.client.steps import Steps
from etherws.client.tls_refusals import certificate_error, tls_error
from etherws.client.upgrade import Agreement, Upgrade
from etherws.client.uris import ServerUri, tls_name
from etherws.close_codes import CloseCode
from etherws.errors import ConnectError, NoSuchLink, OtherKey, SettingsError, printable
from etherws.features import Features, Membership
from etherws.reloadable import Reloadable
from etherws.settings import DeviceSettings, Trust
from etherws.tunnel import tap_probe
from etherws.tunnel.connection import Connection
from etherws.tunnel.stream import Stream
from etherws.tunnel.tap import Tap
from etherws.tunnel.tls import TlsStream

log = logging.getLogger(__name__)


class RemoteServer:
    """A server, and how to reach it. `name` is its name in the log."""

    #: What connect() makes of the stream.
    connection = Connection
    #: The proxy on the way to it, http://HOST:PORT without a password; empty if there is none.
    proxy = ""
    #: What is wrong with the path, though the last attempt came through: a sentence for each kind of trouble, empty if
    #: it is over. Each is logged once: a lost connection comes again, with the same server.
    warnings: Mapping[str, str] = MappingProxyType({})
    #: How many connections the server gives the link that the last attempt has founded; 0 if it knows no links, or no
    #: link was offered.
    members = 0

    def __init__(
        self,
        uri: ServerUri,
        settings: DeviceSettings,
        *,
        proxy_choice: ProxyChoice,
        trust: Trust,
        credentials: Credentials,
        headers: Sequence[tuple[str, str]] = (),
        timeout: float = 10.0,
        dialer: Dialer | None = None,
        also_offer: Features | None = None,
        steps: Steps | None = None,
    ) -> None:
        """`headers` are sent with the upgrade request. `timeout` is in seconds, for one whole attempt: from the look-up
        of the name to the 101. `dialer` makes the TCP connections in place of one by `proxy_choice`. `also_offer` are
        features beside those that every client has; an answer in doubt is then not followed by a request without an
        offer. `steps` is told what happens.

        Raises SettingsError if a file of `trust`, or the chosen proxy, cannot be used.
        """
        self._uri, self._settings, self._trust, self._credentials = uri, settings, trust, credentials
        self._headers, self._timeout = headers, timeout
        # A proxy that cannot be used is reported at the start.
        proxy, _ = proxy_choice.proxy_for(uri.host, uri.secure)
        self.proxy = str(proxy or "")
        self._dialer = dialer or Dialer(proxy_choice)
        self._also_offer, self._steps = also_offer or {}, steps or Steps()
        self._offer = Offer(settings, self._also_offer, takes_uso=tap_probe.takes_uso)
        self.name = f"{'wss' if uri.secure else 'ws'}://{authority(uri.host, uri.port)}"
        #: The same for all URIs that certainly name the same server.
        # A server of ours does not count a slash at the end of the path.
        host = canonical(uri.host) if ":" in uri.host else tls_name(uri.host)
        self.target = authority(host, uri.port) + (uri.path.rstrip("/") or "/")
        # Without the dot at its end, as TLS has names (RFC 6066, section 3).
        self._server_name = tls_name(trust.sni or uri.host)
        self._tls_context = Reloadable(lambda: certificates.client_context(trust), trust.files) if uri.secure else None
        #: A secret between the server and us. With it we get our port back after a lost connection.
        self.resume = secrets.token_urlsafe(16)
        # The last TLS of this attempt.
        self._tls: TlsStream | None = None
        # What this attempt waits for, from TLS on.
        self._step: Step | None = None

    @property
    def address(self) -> str:
        """The IP address at which it was reached last; empty if none was, or if only a proxy knows it."""
        return self._dialer.address

    @property
    def sends_secrets_in_clear(self) -> bool:
        """Whether a password or token goes over the network without TLS."""
        return bool(self._credentials) and not self._uri.secure

    def go_on_as(self, token: str) -> None:
        """Have the server know us by this resume token: it is that of the process before this one, or already ours."""
        if token != self.resume:
            self.resume = token
            self._offer.continues()

    def connect(self, tap: Tap | None = None, membership: Membership | None = None) -> Connection:
        """One attempt. The server is told the MTU of `tap`, and the `membership` if the connection is one of a link. It
        is two connections, one after the other, if the answer to the first leaves a doubt about the version of the
        wire: the second one offers nothing. A further member of a link goes to the address that the last attempt has
        reached.

        Raises ConnectError; NotAdmitted if the server refuses our credentials; NoSuchLink if a further member has come
        to a server that does not have the link.
        """
        again = membership is not None and not membership.new
        with self._explained() as deadline:
            while True:
                stream = self._reach(again=again)
                try:
                    connection, sure = self._upgrade(stream, tap, deadline, membership)
                except BaseException:
                    stream.close()
                    raise
                # The connection closes the stream from now on.
                if sure or self._also_offer:
                    return connection
                connection.close(CloseCode.NORMAL)

    def reach(self) -> Stream:
        """The first half of an attempt: a stream to the server, in TLS for a wss:// URI. Raises ConnectError."""
        with self._explained():
            return self._reach()

    def try_to_reach(self, listen: float) -> None:
        """reach(), and hang up. In TLS 1.3 the server looks at our certificate, or sees that there is none, after we
        are done: wait so many seconds for its alert. A request might cross it, and then be answered by a mere RST."""
        with self._explained(), contextlib.closing(self._reach()) as stream:
            if self._tls:
                with contextlib.suppress(TimeoutError), gevent.Timeout(listen, TimeoutError()):
                    stream.recv(1)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[gevent.Timeout]:
        """A block that has the time of one attempt, and whose errors become ConnectError."""
        self._tls = self._step = None
        deadline = gevent.Timeout.start_new(self._timeout)
        try:
            yield deadline
        except gevent.Timeout as exc:
            if exc is not deadline:
                raise
            dialer, proxy = self._dialer, str(self._dialer.pending_proxy or "")
            raise ConnectError(no_answer(self._timeout, self._step or dialer.step, dialer.where, proxy)) from None
        except ssl.SSLCertVerificationError as exc:
            raise certificate_error(exc, self._tls.peer_chain() if self._tls else []) from exc
        except ssl.SSLError as exc:
            agreed = self._tls is not None and self._tls.cipher() is not None
            raise tls_error(exc, self._server_name, cipher_agreed=agreed) from exc
        except (OSError, UnicodeError) as exc:
            raise ConnectError(described(exc)) from exc
        except SettingsError as exc:
            # A file that could be used at the start.
            raise ConnectError(str(exc)) from exc
        finally:
            deadline.close()

    def _reach(self, *, again: bool = False) -> Stream:
        uri = self._uri
        stream = self._dialer.dial(uri.host, uri.port, uri.secure, uri.zone, again=again)
        self.warn("addresses", self._dialer.warning)
        try:
            if self._tls_context:
                self._step = Step.TLS
                stream = self._tls = TlsStream(stream, self._tls_context.get(), server_hostname=self._server_name)
                self._steps.tls(self._tls)
                self._tls.do_handshake()
                self.warn("interception", _intercepted(self._tls.getpeercert()))
                self._check_pin(self._tls)
        except BaseException:
            stream.close()
            raise
        return stream

    def _check_pin(self, tls: TlsStream) -> None:
        if not self._trust.pins:
            return
        try:
            pin = certificates.pin_of(tls.getpeercert(True))
        except ValueError as exc:
            raise ConnectError(f"its certificate has no key that can be compared with --pinnedpubkey: {exc}") from exc
        if pin not in self._trust.pins:
            text = "is that the right server? See --pinnedpubkey"
            kind = f"its key is not the pinned one; {text}"
            raise OtherKey(f"its key is not the pinned one but {pin}; {text}", kind=kind)

    def _upgrade(
        self, stream: Stream, tap: Tap | None, deadline: gevent.Timeout, membership: Membership | None = None
    ) -> tuple[Connection, bool]:
        """Send the upgrade request, read the answer, and make a connection of the stream and the bytes behind it.
        Return it, and whether the two ends are sure to speak the same version of the wire there. If not, the next
        request will offer nothing. `deadline` is the attempt's, which a 101 that is sure has met."""
        self._step = Step.REQUEST
        mtu = tap.mtu() if tap else None
        upgrade = Upgrade(self._uri, self._offer.features(mtu, membership))
        own = [("Etherws-Resume", self.resume)]
        authorization = self._credentials.authorization()
        if authorization:
            own.append(("Authorization", authorization))
        answer = upgrade.ask(stream, own, self._headers)
        if answer.status != 101:
            # Not shown if its body repeats it. The URI's query may be a token.
            sent = (self.resume, self._uri.query or "", *(value for _, value in self._headers))
            body = error_body(stream, answer)
            self._steps.answered(answer, body)
            raise refusal(answer, self._uri, body=body, authorization=authorization or "", secrets=sent)
        self._steps.answered(answer, b"")
        agreed, congestion = upgrade.agreed(answer), self._settings.congestion
        self._steps.agreed(agreed)
        given = None if agreed.doubt else features.link_of(agreed.features, answer=True)
        if membership and not (membership.new or (given and self._offer.joins(agreed, membership, given))):
            raise NoSuchLink(
                "let a further connection in, but not as one of the link: another server, or a proxy on another way,"
                " has answered; have a load balancer keep a client's connections on one server, or use --connections 1"
            )
        self.members = given.of if given else 0
        early = answer.rest
        if agreed.version.number == 1 and not agreed.doubt:
            # Version 2 was agreed on by a server that had looked at the whole request.
            deadline.close()
            early = first_bytes(stream, early)
        self._offer.agreed(agreed, membership)
        self._note(agreed, tap.name if tap else "", mtu)
        connection = self.connection(
            stream,
            server=False,
            wire=agreed.version,
            congestion=congestion,
            early=early,
            name=self.name,
            mtu=tap.mtu if tap else None,
            peer_mtu=agreed.mtu,
            agreed=tuple(agreed.features),
        )
        return connection, not agreed.doubt

    def _note(self, agreed: Agreement, name: str, mtu: int | None) -> None:
        """Remember and log what the answer says. `name` and `mtu` are the TAP's."""
        if agreed.doubt:
            slower = "speaking version 1 of the wire, which is slower"
            self.warn("wire", f"{self.name}: {slower}: {agreed.doubt}. --wire 1 offers nothing from the start")
        elif agreed.version.number == 2:
            self.warn("wire", "")
        if agreed.mtu and mtu:
            differ = agreed.mtu != mtu
            self.warn("MTU", features.mtu_warning(name, mtu, self.name, agreed.mtu) if differ else "")

    def warn(self, kind: str, text: str) -> None:
        """Remember the trouble of this kind, none if `text` is empty, and log it if it is new."""
        if text and self.warnings.get(kind) != text:
            log.warning("%s", text)
        self.warnings = {**self.warnings, kind: text}


def _intercepted(certificate: Any) -> str:
    """What is wrong with the server's certificate, as ssl.SSLSocket.getpeercert() gives it once it has verified it: a
    product that inspects TLS has made it, and this machine trusts that; else empty."""
    names = [f"{name}={value}" for part in (certificate or {}).get("issuer", ()) for name, value in part]
    product = interception.product([printable(",".join(names))])
    return product and (
        f"{product} intercepts TLS: it has made the certificate of the server, and reads all that passes. Have whoever"
        " runs it leave this server out; --pinnedpubkey with the server's own key refuses it"
    )
