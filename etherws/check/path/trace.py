"""One attempt of the client's by one address, and what was seen on it: certificates, the answer, what was agreed on.

The attempt is the client's own (client/attempt.py); this keeps it to one address, and remembers its steps. Read next:
client/steps.py; secure.py and answers.py, which judge what was seen.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from etherws import features
from etherws.access.certificate_facts import Facts, facts_of
from etherws.check.path.tcp import open_to
from etherws.client.attempt import RemoteServer
from etherws.client.credentials import Credentials
from etherws.client.dial import Dialer
from etherws.client.http_answer import HttpAnswer
from etherws.client.proxy_choice import ProxyChoice
from etherws.client.steps import Steps
from etherws.client.upgrade import Agreement
from etherws.client.uris import ServerUri
from etherws.settings import DeviceSettings, Trust
from etherws.tunnel.stream import PlainStream, Stream
from etherws.tunnel.tls import TlsStream

#: Certificates of a chain that are looked at. OpenSSL takes 100 KB of them, which may be many small ones.
CHAIN_MAX = 8


@dataclass(frozen=True)
class Target:
    """What to check: a server, and how the client would reach it. `timeout` is in seconds, for each step. With `idle`,
    also how long an idle connection lives, up to so many seconds. `device` says how the client would speak, and has the
    MTU of its interface."""

    uri: ServerUri
    proxy_choice: ProxyChoice
    trust: Trust
    credentials: Credentials
    headers: Sequence[tuple[str, str]] = ()
    timeout: float = 10.0
    idle: float | None = None
    device: DeviceSettings = field(default_factory=DeviceSettings)


class OneAddress(Dialer):
    """Connects to one address, whatever the name says: that of the server, or that of the proxy."""

    def __init__(self, choice: ProxyChoice, address: Any, segment: int | None = None) -> None:
        """`address` is in getaddrinfo()'s form; `segment` as in open_to()."""
        super().__init__(choice)
        self._address, self._segment = address, segment

    def _connect(self, host: str, port: int) -> Stream:
        return PlainStream(open_to(self._address, self._segment))


class Seen(Steps):
    """What one attempt has seen so far."""

    def __init__(self) -> None:
        self._tls: TlsStream | None = None
        #: The answer to the upgrade request, the beginning of its body, and what it agrees on.
        self.answer: HttpAnswer | None = None
        self.body = b""
        #: When the answer came.
        self.answered_at = datetime.datetime.now(datetime.timezone.utc)
        self.agreement: Agreement | None = None

    def tls(self, stream: TlsStream) -> None:
        """See Steps."""
        self._tls = stream

    def answered(self, answer: HttpAnswer, body: bytes) -> None:
        """See Steps."""
        self.answer, self.body = answer, body
        self.answered_at = datetime.datetime.now(datetime.timezone.utc)

    def agreed(self, agreement: Agreement) -> None:
        """See Steps."""
        self.agreement = agreement

    def tls_version(self) -> tuple[str, str]:
        """The version of TLS, such as TLSv1.3, and the cipher; both empty if nothing was agreed on."""
        return (self._tls.tls_version() if self._tls else None) or ("", "")

    def alpn(self) -> str | None:
        """What ALPN has agreed on."""
        return self._tls.alpn() if self._tls else None

    def chain(self) -> list[Facts]:
        """The server's certificates, its own first; CHAIN_MAX at most."""
        chain = self._tls.peer_chain() if self._tls else []
        return [facts for facts in map(facts_of, chain[:CHAIN_MAX]) if facts]

    def features(self) -> features.Features:
        """The features that the server has agreed to."""
        return self.agreement.features if self.agreement else {}


def server(
    target: Target, address: Any, seen: Seen, *, kind: str | None = None, segment: int | None = None
) -> RemoteServer:
    """The client's own way to the server, by this address only. `kind` is that of the check, which is offered to the
    server: features.CHECK or features.IDLE. Raises SettingsError if a file cannot be used."""
    return RemoteServer(
        target.uri,
        target.device,
        proxy_choice=target.proxy_choice,
        trust=target.trust,
        credentials=target.credentials,
        headers=target.headers,
        timeout=target.timeout,
        dialer=OneAddress(target.proxy_choice, address, segment),
        also_offer={features.CHECK: features.check_value(kind)} if kind else None,
        steps=seen,
    )
