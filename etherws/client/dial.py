"""Make the connection to the server: directly to the first of its addresses that answers, or through a proxy.

TLS to the proxy is done here, TLS to the server is not. The deadline is the caller's. Read next: proxy_choice.py, which
chooses the proxy; proxies.py, which talks to it; attempt.py, the caller. Source: RFC 8305, sections 4 and 5.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import ssl
from itertools import zip_longest
from typing import Any

import gevent
from gevent import socket
from gevent.queue import Empty, SimpleQueue
from gevent.socket import socket as GeventSocket

from etherws.access import certificates
from etherws.addresses import authority
from etherws.client.network_errors import NAMED, Step, described, missed
from etherws.client.proxies import http_connect, socks5_connect
from etherws.client.proxy_choice import Proxy, ProxyChoice
from etherws.errors import ConnectError, some_of
from etherws.tunnel.stream import PlainStream, Stream
from etherws.tunnel.tls import TlsStream

log = logging.getLogger(__name__)

#: Seconds until the next address is tried as well (RFC 8305, section 8, Connection Attempt Delay).
ATTEMPT_DELAY = 0.25

#: Which of several errors to report: the first in this list that occurred. Errors that the other machine sent come
#: before errors of the path to it.
_MOST_USEFUL_ERRORS = (errno.ECONNREFUSED, errno.ECONNRESET, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH)

_FAMILIES = {0: socket.AF_UNSPEC, 4: socket.AF_INET, 6: socket.AF_INET6}


class Dialer:
    """Makes connections by one proxy choice."""

    def __init__(self, choice: ProxyChoice) -> None:
        self._choice = choice
        self._logged = ""
        #: The proxy that has not given its last answer yet, for the error after a time-out.
        self.pending_proxy: Proxy | None = None
        #: The IP address that the last connection was made to; empty behind a proxy.
        self.address = ""
        #: What it waits for, and the addresses that it has tried last: for the same error.
        self.step, self.where = Step.NAME, ""
        #: What is wrong with the other addresses of the name, in words; empty if nothing is known of that.
        self.warning = ""
        # The address that the last connection was made to, in getaddrinfo()'s form: the server's or the proxy's; and
        # whether only that one is to be tried.
        self._last: Any = None
        self._again = False

    def dial(self, host: str, port: int, secure: bool, zone: str = "", *, again: bool = False) -> Stream:
        """A connection to the host and port of a ws:// URI, or of a wss:// URI if `secure`; to `connect_to` instead if
        the choice has one. `zone` is the interface of a link-local address. With `again`: to the very address, of the
        server or of the proxy, that the last connection was made to, whatever others the name has.

        Raises ConnectError; the message names the proxy if the proxy failed.
        """
        self.pending_proxy, self._again = None, again
        if not again:
            self.address = ""
        proxy, reason = self._choice.proxy_for(host, secure)
        if reason != self._logged:
            self._logged = reason
            log.info("%s", reason)
        host, port = self._choice.connect_to or (host, port)
        if proxy is None:
            return self._connect(f"{host}%{zone}" if zone and not self._choice.connect_to else host, port)
        self.pending_proxy = proxy
        try:
            stream = self._connect_through(proxy, host, port)
        except ssl.SSLCertVerificationError as exc:
            text = f"its certificate does not verify: {exc.verify_message}; the system's store must verify it"
            raise ConnectError(f"the proxy {proxy}: {text}") from exc
        except ssl.SSLError as exc:
            raise ConnectError(f"the proxy {proxy}: TLS failed ({exc.reason or exc}); is it an http:// proxy?") from exc
        except ConnectError as exc:
            raise ConnectError(f"the proxy {proxy}: {exc}", kind=f"the proxy {proxy}: {exc.kind}") from exc
        except OSError as exc:
            raise ConnectError(f"the proxy {proxy}: {described(exc)}") from exc
        self.pending_proxy = None
        if not again:
            # The address was the proxy's.
            self.address = ""
        return stream

    def _connect_through(self, proxy: Proxy, host: str, port: int) -> Stream:
        if proxy.scheme != "socks5":
            return http_connect(proxy, host, port, lambda: self._connect_to_http_proxy(proxy))
        stream = self._connect(proxy.host, proxy.port)
        self.step = Step.PROXY
        try:
            socks5_connect(proxy, host, port, stream)
        except BaseException:
            stream.close()
            raise
        return stream

    def _connect_to_http_proxy(self, proxy: Proxy) -> Stream:
        """A connection to an HTTP proxy; to an HTTPS proxy in TLS."""
        stream = self._connect(proxy.host, proxy.port)
        self.step = Step.PROXY
        if proxy.scheme == "http":
            return stream
        try:
            tls = TlsStream(stream, certificates.proxy_context(), server_hostname=proxy.host)
            tls.do_handshake()
        except BaseException:
            stream.close()
            raise
        return tls

    def _connect(self, host: str, port: int) -> Stream:
        self.step = Step.NAME
        found = [self._last] if self._again and self._last else look_up(host, port, self._choice.family)
        self.step, self.where = Step.TCP, some_of([authority(*each[4][:2]) for each in found], NAMED)
        dead: list[tuple[Any, OSError | None]] = []
        sock = connect_first(found, dead)
        if self._again:
            return PlainStream(sock)
        self.address = self.warning = ""
        # The peer may be gone already.
        with contextlib.suppress(OSError):
            reached = sock.getpeername()
            self.address, self._last = str(reached[0]), next((each for each in found if each[4] == reached), None)
            self.warning = missed(host, [(str(each[4][0]), error) for each, error in dead], self.address)
        return PlainStream(sock)


def look_up(host: str, port: int, family: int = 0) -> list[Any]:
    """All addresses of a host, in getaddrinfo()'s form; `family` as in ProxyChoice. Raises ConnectError."""
    try:
        # gevent looks the name up in a thread, so that the event loop does not block.
        return list(socket.getaddrinfo(host, port, _FAMILIES[family], socket.SOCK_STREAM))
    except (OSError, UnicodeError) as exc:
        zone = host.partition("%")[2]
        missing = f"there is no interface {zone}, which its address names" if zone else ""
        raise ConnectError(missing or described(exc)) from exc


def interleave(addresses: list[Any]) -> list[Any]:
    """Addresses in getaddrinfo()'s form, with the two IP versions in turn. The version of the first address comes first
    (RFC 8305, section 4)."""
    families: tuple[list[Any], list[Any]] = ([], [])
    for address in addresses:
        families[address[0] != addresses[0][0]].append(address)
    return [address for pair in zip_longest(*families) for address in pair if address]


def connect_first(addresses: list[Any], dead: list[tuple[Any, OSError | None]] | None = None) -> GeventSocket:
    """A socket connected to the first address that answers; the other attempts are closed. `addresses` are in
    getaddrinfo()'s form. Those that were tried before that one in vain are added to `dead`, with the error, or None if
    they were silent.

    Raises ConnectError with the most useful of the errors if all addresses failed.
    """
    untried, silent = interleave(addresses), list[Any]()
    attempts: list[gevent.Greenlet[..., None]] = []
    results: SimpleQueue[tuple[Any, GeventSocket | OSError]] = SimpleQueue()
    errors: list[tuple[OSError, Any]] = []
    try:
        while len(errors) < len(addresses):
            if untried:
                silent.append(untried.pop(0))
                attempts.append(gevent.spawn(_connect_to, silent[-1], results))
            try:
                address, result = results.get(timeout=ATTEMPT_DELAY if untried else None)
            except Empty:
                continue
            if isinstance(result, GeventSocket):
                if dead is not None:
                    dead += [(each, error) for error, each in errors]
                    # Those behind it in the row may answer yet.
                    dead += [(each, None) for each in silent[: silent.index(address)]]
                return result
            errors.append((result, address))
            silent.remove(address)
    finally:
        gevent.killall(attempts)
        while not results.empty():
            _, late = results.get()
            if isinstance(late, GeventSocket):
                late.close()
    error, address = min(errors, key=lambda pair: [*_MOST_USEFUL_ERRORS, pair[0].errno].index(pair[0].errno))
    where = f" by {address[4][0]}" if len(addresses) > 1 else ""
    raise ConnectError(described(error, where), kind=described(error)) from error


def _connect_to(address: Any, results: SimpleQueue[tuple[Any, GeventSocket | OSError]]) -> None:
    """Connect to one address; put the socket or the error into the queue."""
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(socket.socket(*address[:3]))
            sock.connect(address[4])
        except OSError as exc:
            results.put((address, exc))
        else:
            stack.pop_all()
            results.put((address, sock))
