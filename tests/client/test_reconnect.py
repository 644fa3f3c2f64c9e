"""The client against servers that misbehave, or are no WebSocket servers: what it logs, and that it retries."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from unittest.mock import Mock

import gevent
import pytest
from cryptography import x509
from gevent.event import Event

from etherws.client import reconnect
from etherws.client.attempt import RemoteServer
from etherws.client.credentials import Credentials
from etherws.client.proxy_choice import ProxyChoice
from etherws.client.reconnect import HAND_OVER_TIMEOUT, STOP_TIMEOUT, Client
from etherws.client.uris import split_uri
from etherws.errors import ConnectError, ConnectionClosed, EtherwsError
from etherws.events import Event as EtherwsEvent
from etherws.features import Membership
from etherws.kernel.store import Store
from etherws.settings import ClientSettings, Retry, Trust
from etherws.tunnel.connection import Connection
from etherws.tunnel.frames import Decoder, Opcode
from etherws.tunnel.session import Session
from etherws.tunnel.tap import Tap
from etherws.tunnel.wire import Version1
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host, until
from tests.lab.pki import Certificate, pin_of, rewritten
from tests.lab.servers import Talk, answer, hang, serve, switching
from tests.lab.websocket import feed

#: How a process starts is not what is tested here.
pytestmark = pytest.mark.usefixtures("forks_etherws")

REFUSALS: dict[str, tuple[Talk, str]] = {
    "speaks no HTTP": (
        answer(b"220 mail.example ESMTP\r\n\r\n"),
        "gave no valid answer to the upgrade: it speaks the protocol of a mail or FTP server there",
    ),
    "hangs up": (answer(b""), "ended the connection without an answer"),
    "says nothing": (hang, "no answer within 0.3 s"),
    "404": (answer(b"HTTP/1.1 404 Not Found\r\n\r\n"), "answered 404 Not Found; is the path right?"),
    "400": (answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "does a proxy between drop headers, or speak HTTP/1.0?"),
    "426": (answer(b"HTTP/1.1 426 Upgrade Required\r\n\r\n"), "does a proxy between drop the Upgrade header? see docs"),
    "502": (answer(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), "cannot reach etherws behind it"),
    "504": (answer(b"HTTP/1.1 504 Gateway Timeout\r\n\r\n"), "no answer from etherws behind it in time"),
    "302": (
        answer(b"HTTP/1.1 302 Found\r\nLocation: https://else.example/\x1b[2J\r\n\r\n"),
        "302 Found to https://else.example/?[2J; etherws follows no redirects",
    ),
    "200": (answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"), "answered 200 OK"),
    "endless headers": (answer(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000), "headers of over 16384 bytes"),
    "an unknown status": (answer(b"HTTP/1.1 799 \x1b[2J\r\n\r\n"), "answered 799 unknown status"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_not_an_etherws_server_is_reported_and_retried(host: Host, case: str) -> None:
    talk, words = REFUSALS[case]
    with serve(host, talk) as port:
        client = host.etherws(
            "client", "--foreground", "--debug", f"ws://127.0.0.1:{port}/",
            "--connect-timeout", "300ms", "--retry-interval", "10ms",
        )  # fmt: skip
        # One line for the user; further attempts are logged only at the debug level.
        client.says(words, times=4)
        assert client.output.count("INFO") == 1
        assert "ethws0" in host.links()
        assert "\x1b" not in client.output
        client.stop()


def test_a_server_that_closes_in_the_tls_handshake_is_retried(host: Host) -> None:
    # A proxy does that if it has no server behind it.
    with serve(host, answer(b"")) as port:
        client = host.etherws(
            "client", "--foreground", "--debug", f"wss://127.0.0.1:{port}/", "--retry-interval", "10ms"
        )
        client.says("TLS failed (the peer ended TCP without a TLS close_notify)", times=4)
        client.stop()
    assert "Traceback" not in client.output


WRONG_101 = {
    "Sec_WebSocket_Accept": b"bm90IHRoZSBrZXkgYXQgYWxs",
    "Upgrade": b"h2c",
    "Connection": b"close",
    "Sec_WebSocket_Protocol": b"chat",
    "Sec_WebSocket_Extensions": b"permessage-deflate",
}


@pytest.mark.parametrize("header", WRONG_101)
def test_a_wrong_101_is_refused(host: Host, header: str) -> None:
    def talk(connection: socket.socket, request: bytes) -> None:
        connection.sendall(switching(request, **{header: WRONG_101[header]}))
        connection.recv(1)

    with serve(host, talk) as port:
        client = host.etherws("client", "--foreground", f"ws://127.0.0.1:{port}/")
        client.says("gave no valid answer to the upgrade")
        client.stop()


def test_frames_that_come_with_the_101_are_not_lost(host: Host) -> None:
    arrived = bytes(6) + b"\x02\xee\x00\x00\x00\x01\x88\xb5" + b"early" * 20
    ready = threading.Event()

    def talk(connection: socket.socket, request: bytes) -> None:
        ready.wait(PATIENCE)
        connection.sendall(switching(request) + bytes([0x82, len(arrived)]) + arrived)
        connection.recv(1)

    with serve(host, talk) as port:
        client = host.etherws("client", "--foreground", "--debug", f"ws://127.0.0.1:{port}/")
        until(lambda: "ethws0" in host.links(), "ethws0 to appear")
        frames = host.frames("ethws0")
        ready.set()
        assert frames.receive() == arrived
        client.stop()


def test_what_the_machine_sends_once_it_hears_of_the_connection_is_not_lost(host: Host) -> None:
    over, sent, heard = Event(), frame(100, to=b"\xff" * 6), threading.Event()

    def talk(connection: socket.socket, request: bytes) -> None:
        # With a Ping: the client waits for a sign that it is let in.
        connection.sendall(switching(request) + b"\x89\x00")
        decoder = Decoder(server=True, max_message=1 << 20)
        while data := connection.recv(4096):
            for opcode, payload in feed(decoder, data):
                if payload == sent:
                    heard.set()
                if opcode == Opcode.CLOSE:
                    return

    def wait() -> None:
        while not heard.is_set():
            gevent.sleep(0.001)
        over.set()

    def ready(*_: object) -> None:
        host.frames("ethws0").send(sent)
        gevent.spawn(wait)

    with serve(host, talk) as port, host.namespace.inside(), gevent.Timeout(PATIENCE):
        uri, _, _ = split_uri(f"ws://127.0.0.1:{port}/")
        server = RemoteServer(
            uri, ClientSettings(), proxy_choice=ProxyChoice(), trust=Trust(), credentials=Credentials()
        )
        Client([server], ClientSettings(), Retry()).run(ready, over)
    assert heard.is_set()


BAD_FRAMES = {
    "masked": (b"\x82\x80abcd", "masked frame from the server", 1002),
    "reserved bit": (b"\xc2\x00", "reserved bit set", 1002),
    "reserved opcode": (b"\x83\x00", "reserved opcode", 1002),
    "long control": (b"\x89\x7e\x00\x7e", "control frame of over 125", 1002),
    "too big": (b"\x82\x7f\x00\x00\x00\x00\x40\x00\x00\x00", "message of 1073741824 bytes", 1009),
    "bad close": (b"\x88\x02\x03\xec", "close code 1004", 1002),
    "bad text": (b"\x81\x01\xff", "not UTF-8", 1007),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_a_server_that_breaks_a_rule_gets_the_close_code(host: Host, case: str) -> None:
    data, words, code = BAD_FRAMES[case]
    heard: list[bytes] = []

    def talk(connection: socket.socket, request: bytes) -> None:
        connection.sendall(switching(request) + data)
        got = b""
        while chunk := connection.recv(4096):
            got += chunk
        heard.append(got)

    with serve(host, talk) as port:
        client = host.etherws("client", "--foreground", f"ws://127.0.0.1:{port}/", "--retry-interval", "10ms")
        client.says(words)
        # It connects again: a bad server does not end the client.
        client.says(words, times=2)
        client.stop()
    assert code in [close_code(stream) for stream in heard]


def close_code(stream: bytes) -> int | None:
    """The code of the masked Close frame among masked frames."""
    while len(stream) >= 6:
        length = stream[1] & 0x7F
        start = 6 if length < 126 else 8
        if length == 126:
            length = int.from_bytes(stream[2:4], "big")
        payload = bytes(b ^ stream[start - 4 + i % 4] for i, b in enumerate(stream[start : start + length]))
        if stream[0] == 0x88:
            return int.from_bytes(payload[:2], "big")
        stream = stream[start + length :]
    return None


def test_an_unknown_host_is_reported(host: Host) -> None:
    client = host.etherws("client", "--foreground", "ws://no-such-host.invalid/")
    client.says("cannot connect to ws://no-such-host.invalid:80: ")
    client.stop()


def tls_server(certificate: Certificate) -> Callable[[socket.socket], socket.socket]:
    """Wraps accepted connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    return lambda sock: context.wrap_socket(sock, server_side=True)


def keep(connection: socket.socket, request: bytes) -> None:
    """Let the client in, and keep it until it goes."""
    if request:
        connection.sendall(switching(request))
        connection.recv(1)


def test_a_certificate_is_verified_unless_told_otherwise(host: Host, certificate: Certificate) -> None:
    with serve(host, keep, tls_server(certificate)) as port:
        for arguments, words in (
            ([f"wss://127.0.0.1:{port}/"], "its certificate does not verify: self-signed certificate"),
            ([f"wss://127.0.0.2:{port}/", "--cacert", str(certificate.cert)], "Connection refused"),
            ([f"wss://127.0.0.1:{port}/", "--cacert", str(certificate.cert)], "connected to wss://127.0.0.1"),
            ([f"wss://localhost:{port}/", "--cacert", str(certificate.cert)], "connected to wss://localhost"),
            ([f"wss://127.0.0.1:{port}/", "--insecure"], "connected to wss://127.0.0.1"),
        ):
            client = host.etherws("client", "--foreground", *arguments)
            client.says(words)
            client.stop()


def test_a_pin_works_with_a_certificate_that_only_openssl_takes(host: Host, certificate: Certificate) -> None:
    version_6 = rewritten(certificate, b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05")
    with pytest.raises(x509.InvalidVersion):
        x509.load_pem_x509_certificate(version_6.cert.read_bytes())
    with serve(host, keep, tls_server(version_6)) as port:
        for pin, words in ((pin_of(certificate), "connected to"), ("sha256//" + "A" * 43 + "=", "not the pinned one")):
            client = host.etherws(
                "client", "--foreground", "--insecure", "--pinnedpubkey", pin, f"wss://127.0.0.1:{port}/"
            )
            client.says(words)
            assert "ethws0" in host.links()
            client.stop()


def test_a_relay_that_echoes_what_it_is_offered_gets_plain_frames(host: Host) -> None:
    """npm's ws and Go's x/net choose the first subprotocol that they are offered, and know nothing of it."""
    frames: list[bytes] = []

    def talk(connection: socket.socket, request: bytes) -> None:
        found = re.findall(rb"(?i)\r\n(Sec-WebSocket-Protocol|Etherws-Features): ([^\r]*)", request)
        connection.sendall(switching(request, **{name.decode().replace("-", "_"): value for name, value in found}))
        data, events = b"", list[tuple[int, bytes]]()
        while Opcode.CLOSE not in dict(events) and (chunk := connection.recv(65536)):
            data += chunk
            events = feed(Decoder(server=True, max_message=1 << 20), data)
            frames.extend(payload for opcode, payload in events if opcode == Opcode.BINARY)
        connection.sendall(b"\x88\x02\x03\xe8")

    with serve(host, talk) as port:
        client = host.etherws("client", "--foreground", f"ws://127.0.0.1:{port}/")
        client.says("connected to ws://")
        assert client.output.count("speaking version 1 of the wire, which is slower: its header Etherws-Features") == 1
        host.frames("ethws0").send(frame(60))
        until(lambda: frame(60) in frames, "the frame")
        client.stop()


def into(said: list[str]) -> Callable[..., None]:
    """What run() calls with the result of the start: keep its text."""

    def ready(text: str, status: int, extra: Mapping[str, object]) -> None:
        assert (status, isinstance(extra["event"], EtherwsEvent)) == (0, True)
        said.append(text)

    return ready


def a_connection() -> Connection:
    """One for sessions that carry nothing."""
    connection = object.__new__(Connection)
    connection.wire = Version1()
    return connection


class Scripted(RemoteServer):
    """A server whose attempts end as the test says, one after the other; then the test's turn is over."""

    target = resume = ""

    def __init__(self, name: str, ends: list[ConnectError | Connection], over: Event) -> None:
        self.name, self._ends, self._over = name, ends, over

    def connect(self, *_: object) -> Connection:
        """The next end."""
        end = self._ends.pop(0)
        if not self._ends:
            self._over.set()
        if isinstance(end, ConnectError):
            raise end
        return end


def test_after_a_loss_the_log_has_the_first_reason_and_each_new_one(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    over, said, link = Event(), list[str](), a_connection()
    monkeypatch.setattr(Session, "__init__", lambda *_: None)
    monkeypatch.setattr(Session, "age", 0.0)
    monkeypatch.setattr(Session, "silence", 0.0)
    monkeypatch.setattr(Session, "run", lambda *_, **__: ConnectionClosed("closed"))
    for name in ("close", "stop"):
        monkeypatch.setattr(Session, name, lambda *_: None)
    monkeypatch.setattr(Session, "summary", lambda *_: "")
    busy = [
        ConnectError(f"busy, {number} before you; it says: {number}", kind=f"busy, {number}") for number in range(9)
    ]
    gone, last = ConnectError("Connection refused"), ConnectError("no answer")
    first = Scripted("ws://a", [last, link, gone, gone, *busy, gone, link, gone, gone], over)
    second = Scripted("ws://b", [ConnectError("down")] * 14, Event())
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        Client([first, second], ClientSettings(), Retry(0.001, 0.001)).run(into(said), over)
    assert said == ["ethws0 is up, but cannot connect to ws://a: no answer; nor to ws://b: down; retrying"]
    lines = [record.getMessage() for record in caplog.records if record.levelname in ("INFO", "WARNING")]
    assert lines[:6] == [
        "ethws0 is up, connected to ws://a after 2 attempts, 0 s",
        "lost ws://a: closed; trying again",
        "cannot connect to ws://a: Connection refused; trying again",
        "cannot connect to ws://b: down; trying again",
        "cannot connect to ws://a: busy, 0 before you; it says: 0 (what was said before: 2 times in 0 s); trying again",
        "ethws0 is up, connected to ws://a after 13 attempts, 0 s",
    ]
    assert lines[6:9] == lines[1:4]


def test_the_reason_why_the_first_server_is_left_out_is_logged(
    host: Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, said = Event(), list[str]()
    monkeypatch.setattr(Session, "__init__", lambda *_: None)
    monkeypatch.setattr(Session, "age", 0.0)
    monkeypatch.setattr(Session, "silence", 0.0)
    monkeypatch.setattr(Session, "run", lambda *_, **__: over.wait())
    for name in ("close", "stop"):
        monkeypatch.setattr(Session, name, lambda *_: None)
    monkeypatch.setattr(Session, "summary", lambda *_: "")
    servers = [
        Scripted("ws://a", [ConnectError("Connection refused")], Event()),
        Scripted("ws://b", [a_connection()], over),
    ]
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        Client(servers, ClientSettings(), Retry(0.001, 0.001)).run(into(said), over)
    assert caplog.messages[0] == "cannot connect to ws://a: Connection refused; trying again"
    assert said == ["ethws0 is up, connected to ws://b"]


class Fault(RemoteServer):
    """A server about whose answer our code makes a mistake, twice; then the test's turn is over."""

    target = resume = ""

    def __init__(self, over: Event) -> None:
        self.name, self.attempts, self._over = "ws://fault", 0, over

    def connect(self, tap: Tap | None = None, membership: Membership | None = None) -> Connection:
        """Fail as no code should."""
        self.attempts += 1
        if self.attempts > 2:
            self._over.set()
        raise KeyError("no such\x1bkey")


def test_an_unexpected_error_is_logged_and_tried_again(host: Host, caplog: pytest.LogCaptureFixture) -> None:
    over, said = Event(), list[str]()
    server = Fault(over)
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        Client([server], ClientSettings(), Retry(0.01, 0.01)).run(into(said), over)
    assert server.attempts > 2
    words = "ethws0 is up, but cannot connect to ws://fault: unexpected KeyError: 'no such\\x1bkey'; retrying"
    assert said == [words]
    record = caplog.records[0]
    assert record.levelname == "ERROR"
    assert record.getMessage().startswith("unexpected error; please report it\nTraceback (most recent call last)")
    assert "test_reconnect.py" in record.getMessage()


def test_an_unexpected_end_of_a_session_is_logged_and_tried_again(
    host: Host, certificate: Certificate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    over, sessions = Event(), list[object]()

    def fails(session: Session, **_: bool) -> EtherwsError:
        sessions.append(session)
        if len(sessions) == 2:
            over.set()
        raise RecursionError("too deep")

    monkeypatch.setattr(Session, "run", fails)
    with serve(host, keep) as port, host.namespace.inside(), gevent.Timeout(PATIENCE):
        uri, _, _ = split_uri(f"ws://127.0.0.1:{port}/")
        server = RemoteServer(
            uri, ClientSettings(), proxy_choice=ProxyChoice(), trust=Trust(), credentials=Credentials()
        )
        Client([server], ClientSettings(), Retry(0.01, 0.01)).run(into([]), over)
    assert len(sessions) == 2
    assert "lost ws://127.0.0.1" in caplog.text
    assert "unexpected RecursionError: too deep; trying again" in caplog.text
    assert "Traceback" in caplog.text


def test_a_certificate_for_another_name_is_refused(host: Host, certificate: Certificate) -> None:
    context = tls_server(certificate)
    listener = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.1.0.1", 0))
    listener.listen()

    def run() -> None:
        with contextlib.suppress(OSError):
            context(listener.accept()[0]).close()

    thread = threading.Thread(target=run)
    thread.start()
    client = host.etherws(
        "client", "--foreground", f"wss://127.1.0.1:{listener.getsockname()[1]}/", "--cacert", str(certificate.cert)
    )
    client.says("its certificate does not verify: IP address mismatch")
    thread.join(PATIENCE)
    client.stop()


@pytest.mark.parametrize(("scheme", "words"), [("ws", "ended the connection|Connection reset"), ("wss", "TLS failed")])
def test_the_wrong_scheme_is_named(host: Host, certificate: Certificate, scheme: str, words: str) -> None:
    with serve(
        host, answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), tls_server(certificate) if scheme == "ws" else None
    ) as port:
        client = host.etherws("client", "--foreground", f"{scheme}://127.0.0.1:{port}/")
        output = client.says("cannot connect")
        assert any(word in output for word in words.split("|")), output
        client.stop()


@pytest.mark.parametrize(("lasting", "longest"), [(False, STOP_TIMEOUT), (True, HAND_OVER_TIMEOUT)])
def test_a_server_that_does_not_answer_does_not_hold_up_the_next_process(
    monkeypatch: pytest.MonkeyPatch, lasting: bool, longest: float
) -> None:
    monkeypatch.setattr(reconnect, "LocalEnd", Mock())
    monkeypatch.setattr(gevent, "signal_handler", Mock())
    loop = Mock(value=None)
    monkeypatch.setattr(gevent, "spawn", lambda *_: loop)
    monkeypatch.setattr(gevent, "wait", Mock())
    client = Client([], ClientSettings(), Retry(), store=Store(lasting=lasting))
    client.members = Mock()
    client.run(Mock(), Event())
    loop.join.assert_called_once_with(timeout=longest)


def test_a_server_that_drains_sends_the_client_to_the_next(host: Host) -> None:
    """A Close 1012 with this reason; with any other, the client comes back to the same server at once."""
    reasons = [b"draining", b""]

    def closes(connection: socket.socket, request: bytes) -> None:
        # The second time it would let the client in, and keep it.
        connection.sendall(switching(request))
        if not reasons:
            connection.recv(1)
            return
        payload = (1012).to_bytes(2, "big") + reasons.pop(0)
        connection.sendall(bytes([0x88, len(payload)]) + payload)
        while connection.recv(4096):
            pass

    with serve(host, closes) as first, serve(host, keep) as second:
        uris = [f"ws://127.0.0.1:{port}" for port in (first, second)]
        client = host.etherws("client", "--foreground", "--uri", f"{uris[0]}/", "--uri", f"{uris[1]}/")
        output = client.says(f"connected to {uris[1]}")
        assert f"lost {uris[0]}: closed by the peer, code 1012: draining; trying again" in output
        assert output.count(f"connected to {uris[0]}") == 1
        client.stop()
        client = host.etherws("client", "--foreground", "--uri", f"{uris[0]}/", "--uri", f"{uris[1]}/")
        client.says(f"connected to {uris[0]}", times=2)
        assert f"connected to {uris[1]}" not in client.output
        client.stop()
