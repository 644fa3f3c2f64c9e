"""One attempt to connect, against a server and a proxy that say anything: only ConnectError may come of it."""

from __future__ import annotations

import contextlib
import io
import re
import ssl
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gevent
import pytest
from gevent import socket
from hypothesis import given
from hypothesis import strategies as st

from etherws.client import dial
from etherws.client.attempt import RemoteServer
from etherws.client.credentials import Credentials
from etherws.client.offer import OFFER_AGAIN
from etherws.client.proxy_choice import ProxyChoice
from etherws.client.uris import split_uri
from etherws.errors import ConnectError, NoSuchLink
from etherws.features import Membership
from etherws.settings import DeviceSettings, Trust
from etherws.tunnel import tap_probe
from etherws.tunnel.frames import Decoder
from etherws.tunnel.stream import PlainStream
from etherws.tunnel.tls import TlsStream
from tests.lab.answering import Answering
from tests.lab.pki import Authority, Certificate
from tests.lab.servers import switching
from tests.lab.websocket import feed

#: What hostile headers are made of: names that the client reads, values at the edge of their syntax, and noise.
NAMES = st.sampled_from(
    [
        *("WWW-Authenticate", "Proxy-Authenticate", "Retry-After", "Location", "Upgrade", "Connection"),
        *("Sec-WebSocket-Accept", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Content-Length", "", " x"),
    ]
)
PIECES = st.sampled_from(
    [
        *(
            "Basic",
            "Digest ",
            "NTLM TlRMTVNTUAAC",
            "Negotiate",
            "Bearer",
            'realm="',
            "realm=x",
            'nonce="a\\',
            ", ",
            ",",
        ),
        *('qop="auth"', "qop=auth,auth-int", "algorithm=SHA-256", "algorithm=\xff", "stale=true", 'opaque="', "="),
        *("²", "٣", "1e9", "-1", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT", "\x00", "\r", "\n", "\t", " ", "\x85"),
        *(
            "\udcff",
            "\udc80\udcc3",
            "websocket",
            "Upgrade",
            "v2.etherws",
            "permessage-deflate; a=1",
            '"',
            "\\",
            "{target}",
        ),
        *("%s%s", "http://[", "http://\udcff/"),
    ]
)
VALUES = st.lists(PIECES, max_size=6).map("".join)
STATUSES = st.sampled_from([100, 101, 199, 200, 204, 301, 302, 399, 400, 401, 403, 404, 407, 426, 429, 500, 503, 799])
HEADS = st.builds(
    lambda status, reason, headers: (
        f"HTTP/1.1 {status} {reason}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + "\r\n"
    ).encode(errors="surrogateescape"),
    STATUSES,
    VALUES,
    st.lists(st.tuples(NAMES, VALUES), max_size=6),
)
ANSWERS = HEADS | st.binary(max_size=100) | st.builds(lambda head, cut: head[:cut], HEADS, st.integers(0, 60))


class Said(io.BytesIO):
    """A stream whose other end says the same, whatever it is asked; `right` makes it begin with the right 101."""

    def __init__(self, said: bytes, right: bool = False) -> None:
        super().__init__(said)
        self._right = right

    def sendall(self, data: bytes) -> None:
        """As socket.sendall()."""
        if self._right:
            self.__init__(switching(data)[:-2] + self.read())  # type: ignore[misc]

    def recv(self, size: int) -> bytes:
        """As socket.recv()."""
        return self.read(size)


def attempt(monkeypatch: pytest.MonkeyPatch, answers: list[Said], proxy: str | None = None, **login: Any) -> object:
    """Connect to a server that answers so; return what the connection is made from."""
    uri, _, _ = split_uri("ws://server.example/")
    choice = ProxyChoice(proxy)
    server = RemoteServer(uri, DeviceSettings(), proxy_choice=choice, trust=Trust(), credentials=Credentials(**login))
    left = iter(answers)
    monkeypatch.setattr(dial.Dialer, "_connect", lambda *_: next(left))
    monkeypatch.setattr(RemoteServer, "connection", lambda *parts, **_: parts)
    return server.connect()


@given(answer=ANSWERS, right=st.booleans(), login=st.sampled_from([{}, {"user": "u", "password": "p"}, {"token": "t"}]))
def test_whatever_a_server_says_is_an_answer_or_an_error(answer: bytes, right: bool, login: dict[str, str]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.suppress(ConnectError):
        assert attempt(monkeypatch, [Said(answer, right)], **login)


@given(answers=st.lists(ANSWERS, min_size=3, max_size=3), login=st.sampled_from(["", "user:password@"]))
def test_whatever_an_http_proxy_says_is_an_answer_or_an_error(answers: list[bytes], login: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.suppress(ConnectError):
        assert attempt(monkeypatch, [Said(answer) for answer in answers], f"http://{login}proxy:1/")


@given(
    answer=st.lists(st.sampled_from([*(bytes([byte]) for byte in range(6)), b"\xff"]) | st.binary(max_size=30)).map(
        b"".join
    ),
    login=st.sampled_from(["", "user:password@"]),
)
def test_whatever_a_socks_proxy_says_is_an_answer_or_an_error(answer: bytes, login: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, contextlib.suppress(ConnectError):
        assert attempt(monkeypatch, [Said(b"\5" + answer)], f"socks5://{login}proxy:1/")


@pytest.mark.parametrize(
    ("value", "wait"),
    [("120", 120.0), ("999999999", 300.0), ("²", 0.0), ("٣", 0.0), ("-1", 0.0), ("1e3", 0.0), ("", 0.0)],
)
def test_only_plain_digits_of_retry_after_count(monkeypatch: pytest.MonkeyPatch, value: str, wait: float) -> None:
    with pytest.raises(ConnectError, match="answered 503") as caught:
        attempt(monkeypatch, [Said(f"HTTP/1.1 503 Busy\r\nRetry-After: {value}\r\n\r\n".encode())])
    assert caught.value.wait == wait


ECHO = ("etherws.v2", "v2, mtu=1500")
PROVED = ("etherws.v2", {"v2": "", "mtu": "=1500"})
PLAIN = ("", "")


class Servers:
    """A client's server, whose connections the test answers, and the client's clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wire: int = 2, *, uso: bool = True) -> None:
        monkeypatch.setattr(tap_probe, "takes_uso", lambda: uso)
        uri, _, _ = split_uri("ws://server.example/")
        self.now = 1000.0
        self._left: list[Answering] = []
        monkeypatch.setattr(dial.Dialer, "_connect", lambda *_: self._left.pop(0))
        self.server = RemoteServer(
            uri,
            DeviceSettings(wire=wire),
            proxy_choice=ProxyChoice(None),
            trust=Trust(),
            credentials=Credentials(),
        )
        monkeypatch.setattr(self.server._offer, "_clock", lambda: self.now)

    def connect(
        self, *answers: tuple[str, Any], tap: Any = None, membership: Membership | None = None
    ) -> tuple[int, list[Answering]]:
        """One attempt: the version that it speaks, and the connections that it took, all of these."""
        streams = [Answering(*answer) for answer in answers]
        self._left = streams.copy()
        connection = self.server.connect(tap, membership)
        assert not self._left
        connection.close(None)
        return connection.wire.number, streams


def test_an_answer_in_doubt_costs_one_more_connection_without_an_offer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    servers = Servers(monkeypatch)
    version, (first, second) = servers.connect(ECHO, PLAIN)
    assert version == 1
    assert first.offers() == ["Sec-WebSocket-Protocol: etherws.v2", "Etherws-Features: v2, padding"]
    assert second.offers() == []
    # A Close, 1000, by which the server frees the port; and the name by which it knows that the client comes again.
    assert feed(Decoder(server=True, max_message=1), bytes(first.sent)) == [(8, b"\x03\xe8")]
    assert first.ends[-1] == "close"
    assert len({line for one in (first, second) for line in one.asked.split("\r\n") if "Resume" in line}) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "ws://server.example:80: speaking version 1 of the wire, which is slower: its header Etherws-Features does not"
        " belong to this handshake: a proxy on the way makes the handshake anew, or another program echoes what it is"
        " offered. --wire 1 offers nothing from the start"
    ]


def test_a_doubt_is_remembered_for_a_minute_and_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    servers = Servers(monkeypatch)
    servers.connect(ECHO, PLAIN)
    servers.now += OFFER_AGAIN - 1
    assert servers.connect(PLAIN)[1][0].offers() == []
    servers.now += 2
    servers.connect(ECHO, PLAIN)
    assert len(caplog.records) == 1
    # The server was upgraded, and then the proxy before it goes wrong.
    servers.now += OFFER_AGAIN + 1
    assert servers.connect(PROVED)[0] == 2
    servers.connect(("etherws.v2", ""), PLAIN)
    assert len(caplog.records) == 2


def test_a_server_without_version_2_costs_one_connection_each_time(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    servers = Servers(monkeypatch)
    for _ in range(2):
        version, (only,) = servers.connect(PLAIN)
        assert (version, len(only.offers())) == (1, 2)
    assert not caplog.records


def test_with_version_1_only_nothing_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    version, (only,) = Servers(monkeypatch, wire=1).connect(PLAIN)
    assert (version, only.offers()) == (1, [])


FOUNDER = Membership(0, 4, "a" * 22, new=True)
MEMBER = Membership(2, 4, "a" * 22)


def linked(value: str) -> tuple[str, dict[str, str]]:
    """The answer of a server that takes the connection as this member."""
    return "etherws.v2", {"v2": "", "link": value}


def test_the_first_connection_founds_the_link_and_further_ones_join_it(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Servers(monkeypatch)
    for answer, count in ((linked("=0;of=3"), 3), (PROVED, 0), (linked("=0;of=99"), 0)):
        _, (only,) = servers.connect(answer, membership=FOUNDER)
        assert only.offers()[1] == f"Etherws-Features: v2, padding, link=0;of=4;id={'a' * 22};new"
        assert servers.server.members == count
    # A server in doubt is offered nothing, and so gives nothing.
    _, (_, second) = servers.connect(ECHO, PLAIN, membership=FOUNDER)
    assert (second.offers(), servers.server.members) == ([], 0)
    servers.now += OFFER_AGAIN + 1
    _, (only,) = servers.connect(linked("=2;of=4"), membership=MEMBER)
    assert only.offers()[1] == f"Etherws-Features: v2, padding, link=2;of=4;id={'a' * 22}"


@pytest.mark.parametrize("answer", [PLAIN, PROVED, ECHO, linked("=1;of=4"), ("", {"v2": "", "link": "=2;of=4"})])
def test_a_further_connection_that_is_not_taken_as_one_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, answer: tuple[str, Any]
) -> None:
    servers = Servers(monkeypatch)
    with pytest.raises(NoSuchLink, match=r"not as one of the link.*--connections 1"):
        servers.connect(answer, membership=MEMBER)
    # What is wrong there is no doubt about the server of the first one.
    assert caplog.records == []
    assert servers.connect(PROVED)[0] == 2


def test_a_process_that_follows_another_has_its_token_and_offers_no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Servers(monkeypatch)
    for token, padding in ((servers.server.resume, ", padding"), ("b" * 22, "")):
        servers.server.go_on_as(token)
        _, (only,) = servers.connect(PROVED)
        assert only.offers()[1] == f"Etherws-Features: v2{padding}"
        assert servers.server.resume == token


def test_other_mtus_are_warned_of_once_each(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    servers = Servers(monkeypatch)
    for mtu in (9000, 9000, 1500, 1400, None):
        tap = SimpleNamespace(name="ethws0", mtu=lambda mtu=mtu: mtu)
        version, (only,) = servers.connect(PROVED, tap=tap)
        assert version == 2
        told = f", mtu={mtu}, uso" if mtu else ""
        assert only.offers()[1] == f"Etherws-Features: v2{told}, padding"
    assert [record.getMessage() for record in caplog.records] == [
        f"the MTUs differ: {mtu} at ethws0 here, 1500 at the interface of ws://server.example:80. Larger frames can be"
        f" lost without an error; give both the lower one: --mtu {min(mtu, 1500)}"
        for mtu in (9000, 1400)
    ]


#: Answers that agree on UDP super-frames or do not: to a connection alone, to the first one of a link, a further one.
LINKS = {"alone": {}, "first": {"link": "=0;of=4"}, "further": {"link": "=2;of=4"}}
WITH_USO = {name: ("etherws.v2", {"v2": "", **link, "uso": ""}) for name, link in LINKS.items()}
WITHOUT_USO = {name: ("etherws.v2", {"v2": "", **link}) for name, link in LINKS.items()}


@pytest.mark.parametrize("takes", [False, True])
def test_udp_super_frames_are_agreed_on_if_both_kernels_take_them(monkeypatch: pytest.MonkeyPatch, takes: bool) -> None:
    servers = Servers(monkeypatch, uso=takes)
    tap = SimpleNamespace(name="ethws0", mtu=lambda: 1500)
    for answers, agreed in ((WITH_USO, takes), (WITHOUT_USO, False)):
        # A server that lists it without having been asked is not believed.
        (asked,) = servers.connect(answers["alone"], tap=tap)[1]
        assert (", uso" in asked.offers()[1]) is takes
        assert servers.server._offer._uso is agreed


def test_further_members_of_a_link_agree_on_the_same_as_the_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    servers = Servers(monkeypatch)
    tap = SimpleNamespace(name="ethws0", mtu=lambda: 1500)
    for agreed, answers, others in ((True, WITH_USO, WITHOUT_USO), (False, WITHOUT_USO, WITH_USO)):
        servers.connect(answers["first"], tap=tap, membership=FOUNDER)
        (asked,) = servers.connect(answers["further"], tap=tap, membership=MEMBER)[1]
        assert (", uso, " in asked.offers()[1]) is agreed
        if agreed:
            with pytest.raises(NoSuchLink):
                servers.connect(others["further"], tap=tap, membership=MEMBER)
        else:
            # Not offered, so it is not agreed on.
            servers.connect(others["further"], tap=tap, membership=MEMBER)


def target(text: str) -> str:
    uri, _, _ = split_uri(text)
    choice = ProxyChoice(None, None, None, 0, {})
    return RemoteServer(
        uri, DeviceSettings(), proxy_choice=choice, trust=Trust(), credentials=Credentials(None, None, None, None, None)
    ).target


def test_names_that_certainly_mean_the_same_server_have_one_target() -> None:
    assert {target(text) for text in ("ws://h", "ws://H/", "ws://u:p@h:80/", "ws://h./")} == {"h:80/"}
    assert target("ws://h/branch//") == target("ws://h/branch") == "h:80/branch"
    assert target("ws://[::ffff:192.0.2.1]/") == target("ws://192.0.2.1//") == "192.0.2.1:80/"
    assert target("ws://[2001:DB8:0::1]/") == target("ws://[2001:db8::1]") == "[2001:db8::1]:80/"
    others = ("ws://h", "wss://h", "ws://h:81", "ws://h/branch", "ws://[::1]/")
    assert len({target(text) for text in others}) == len(others)


def refused(monkeypatch: pytest.MonkeyPatch, answers: list[bytes], proxy: str | None = None, **login: Any) -> str:
    """The error of an attempt that is answered so."""
    with pytest.raises(ConnectError) as caught:
        attempt(monkeypatch, [Said(answer) for answer in answers], proxy, **login)
    return str(caught.value)


def test_interim_answers_come_before_the_101(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hinting(Said):
        """Says more before its 101."""

        def sendall(self, data: bytes) -> None:
            """As socket.sendall()."""
            super().sendall(data)
            before = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            self.__init__(before + self.read())  # type: ignore[misc]

    assert attempt(monkeypatch, [Hinting(b"\r\n", right=True)])


def test_interim_answers_come_before_a_proxys_200(monkeypatch: pytest.MonkeyPatch) -> None:
    class Proxy(Said):
        """Answers to CONNECT, then as a server does."""

        def sendall(self, data: bytes) -> None:
            """As socket.sendall()."""
            if data.startswith(b"CONNECT "):
                self.__init__(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")  # type: ignore[misc]
            elif data.startswith(b"GET "):
                self.__init__(switching(data))  # type: ignore[misc]

    assert attempt(monkeypatch, [Proxy(b"")], "http://proxy:3128")


def test_the_servers_words_are_shown_but_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 503 x\r\nContent-Type: text/plain\r\n\r\n"
    said = refused(monkeypatch, [head + b"this server is stopping\n"])
    assert said.endswith("the server's log has the reason; it says: this server is stopping")
    for echo in (b"you sent dTpodW50ZXIy", b"wrong password hunter2", b"Bearer tok3n?"):
        login = {"token": "tok3n"} if b"Bearer" in echo else {"user": "u", "password": "hunter2"}
        assert "it says" not in refused(monkeypatch, [head + echo], **login)


def test_a_101_in_http_1_0_is_called_that(monkeypatch: pytest.MonkeyPatch) -> None:
    said = refused(monkeypatch, [b"HTTP/1.0 101 Switching Protocols\r\n\r\n"])
    assert "gave no valid answer to the upgrade: it is in HTTP/1.0; does a proxy between speak that?" in said


def test_silence_and_resets_say_what_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused(monkeypatch, [b""]).endswith("is that an etherws server? does this port want TLS (wss://)?")

    class Resetting(Said):
        """A peer that resets the connection."""

        def recv(self, size: int) -> bytes:
            """As socket.recv()."""
            raise ConnectionResetError(104, "Connection reset by peer")

    with pytest.raises(ConnectError, match=r"^Connection reset by peer; the other side, or a firewall between, ended"):
        attempt(monkeypatch, [Resetting(b"")])


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b"HTTP/1.1 403 x\r\nContent-Type: text/html\r\n\r\n<title>ERROR: no access</title>",
            "answered 403 Forbidden; it does not let this client reach server.example:80; does it allow CONNECT to port"
            " 80? most allow 443 only; it says: ERROR: no access",
        ),
        (b"HTTP/1.1 405 x\r\n\r\n", "is that a proxy? does it allow CONNECT?"),
        (b"HTTP/1.1 418 x\r\n\r\n", "answered 418 I'm a Teapot"),
        (b"\x15\x03\x01\0\x02\x02\x46", "speaks TLS there; write https:// in place of http://"),
        (b"SSH-2.0-x\r\n", "gave an answer that is not HTTP but SSH; is that an HTTP proxy?"),
        (b"nonsense", "gave an answer that is not HTTP; is that an HTTP proxy?"),
    ],
)
def test_what_a_proxy_answers_is_explained(monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str) -> None:
    assert words in refused(monkeypatch, [answer], "http://proxy:3128").replace("I'm a teapot", "I'm a Teapot")


class Names:
    """A TLS server of one certificate; `asked` are the names that clients asked for by SNI, `hosts` their Host
    headers."""

    def __init__(self, pair: Certificate) -> None:
        self.asked: list[str | None] = []
        self.hosts: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(pair.cert, pair.key)
        self._context.sni_callback = lambda _, name, __: self.asked.append(name)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        """Serve one client after the other."""
        while True:
            sock, _ = self.listener.accept()
            with (
                contextlib.suppress(OSError),
                contextlib.closing(TlsStream(PlainStream(sock), self._context)) as stream,
            ):
                stream.do_handshake()
                asked = stream.recv(4096)
                self.hosts += re.findall(r"(?m)^Host: (\S+)", asked.decode())
                stream.sendall(switching(asked))
                stream.recv(1)


@pytest.fixture(scope="module")
def names(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Names, Trust]]:
    """The server, and what a client must trust."""
    authority = Authority(tmp_path_factory.mktemp("names"))
    server = Names(authority.issue(("host.example", "127.0.0.1", "2001:db8::1", "fe80::1", "xn--bcher-kva.example")))
    running = gevent.spawn(server.run)
    yield server, Trust(cacert=str(authority.cert))
    running.kill()
    server.listener.close()


@pytest.mark.parametrize(
    ("uri", "sni", "asked", "host"),
    [
        ("wss://host.example/", None, "host.example", "host.example"),
        # As curl does: SNI and verification without the dot, the Host header with it.
        ("wss://Host.Example./", None, "host.example", "host.example."),
        ("wss://127.0.0.1/", "host.example.", "host.example", "127.0.0.1"),
        ("wss://b\u00fccher.example/", None, "xn--bcher-kva.example", "xn--bcher-kva.example"),
        # No SNI for addresses (RFC 6066, section 3).
        ("wss://127.0.0.1:444/", None, None, "127.0.0.1:444"),
        ("wss://127.1/", None, None, "127.0.0.1"),
        ("wss://[2001:db8::1]/", None, None, "[2001:db8::1]"),
        ("wss://[fe80::1%25eth0]/", None, None, "[fe80::1]"),
    ],
)
def test_the_name_of_a_uri_in_tls_and_http(
    names: tuple[Names, Trust], uri: str, sni: str | None, asked: str | None, host: str
) -> None:
    server, trust = names
    remote = RemoteServer(
        split_uri(uri)[0],
        DeviceSettings(),
        proxy_choice=ProxyChoice(connect_to=("127.0.0.1", server.port)),
        trust=replace(trust, sni=sni),
        credentials=Credentials(),
    )
    remote.connect().close(None)
    assert (server.asked[-1], server.hosts[-1]) == (asked, host)


def test_a_zone_is_a_part_of_the_address_to_connect_to(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[object] = []

    def connect(_: object, *where: object) -> Said:
        dialled.append(where)
        return Said(b"")

    monkeypatch.setattr(dial.Dialer, "_connect", connect)
    for choice in (ProxyChoice(), ProxyChoice(connect_to=("127.0.0.1", 1))):
        server = RemoteServer(
            split_uri("ws://[fe80::1%25eth0]:8080/")[0],
            DeviceSettings(),
            proxy_choice=choice,
            trust=Trust(),
            credentials=Credentials(),
        )
        with pytest.raises(ConnectError):
            server.connect()
    assert dialled == [("fe80::1%eth0", 8080), ("127.0.0.1", 1)]


def test_a_zone_that_is_not_there_is_called_that(network: None) -> None:
    with pytest.raises(ConnectError, match=r"^there is no interface none0, which its address names$"):
        dial.Dialer(ProxyChoice()).dial("fe80::1", 80, secure=False, zone="none0")


def test_an_error_of_the_network_names_the_address_and_what_to_try(network: None) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    sock.close()
    with pytest.raises(ConnectError, match=r"^Connection refused; is it running there, and is the port right\?$"):
        dial.Dialer(ProxyChoice()).dial("127.0.0.1", port, secure=False)


@pytest.mark.parametrize(
    ("wire", "also", "offered"),
    [
        (2, {"check": ""}, {"v2": "", "mtu": "=1500", "check": ""}),
        (1, {"check": "=idle"}, {"check": "=idle"}),
        (1, None, None),
    ],
)
def test_a_check_is_offered_with_each_version(
    wire: int, also: dict[str, str] | None, offered: dict[str, str] | None
) -> None:
    server = RemoteServer(
        split_uri("ws://localhost/")[0],
        DeviceSettings(wire=wire),
        proxy_choice=ProxyChoice(),
        trust=Trust(),
        credentials=Credentials(),
        also_offer=also,
    )
    assert server._offer.features(1500) == offered
