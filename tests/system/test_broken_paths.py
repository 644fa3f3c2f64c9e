"""Broken set-ups between a client and a server: what ``etherws check`` says, with the mend; and what the client's log
and its status say. Each names the cause.

Each is a real socket; what stands between is made of a few lines. The machines are made once: a server and a client,
joined by a cable.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import select
import socket
import ssl
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from etherws.access import passwd
from etherws.check.findings import Finding, Verdict
from etherws.check.path import idle_findings, names
from etherws.client import losses
from etherws.client.link_state import CONNECTED, WAITING
from etherws.client.proxy_choice import ProxyChoice
from etherws.settings import ClientSettings, Trust
from tests.lab.checking import Found, check
from tests.lab.hosts import PATIENCE, Host, Process, cable
from tests.lab.offloads import without_offloads
from tests.lab.peer import Peer, request
from tests.lab.pki import Authority, Certificate
from tests.lab.servers import Talk, answer, hang, serve, switching
from tests.lab.trying import Said, tried

#: Seconds for a step that must fail by its time. Each such test takes as long.
SHORT = 0.3

#: Addresses whose packets vanish.
NO_ANSWER_AT, NO_ANSWER_AT_V6 = "198.51.100.9", "2001:db8::9"


@pytest.fixture(scope="module")
def machines(network: None) -> Iterator[tuple[Host, Host]]:
    """A server's machine and a client's."""
    with contextlib.closing(Host()) as one, contextlib.closing(Host()) as other:
        cable(one, other, "192.0.2.1/24", "192.0.2.2/24")
        with other.netlink() as route:
            index = route.link_lookup(ifname="eth0")[0]
            route.addr("add", index=index, address="198.51.100.1", prefixlen=24)
            # IFA_F_NODAD of linux/if_addr.h: usable at once.
            route.addr("add", index=index, address="2001:db8::1", prefixlen=64, flags=0x02)
            for address in (NO_ANSWER_AT, NO_ANSWER_AT_V6):
                # Frames go to an Ethernet address that nobody has. 0x80: NUD_PERMANENT of linux/neighbour.h.
                route.neigh("add", dst=address, lladdr="02:00:00:00:00:99", ifindex=index, state=0x80)
        yield one, other


@pytest.fixture
def client(machines: tuple[Host, Host]) -> Host:
    """The client's machine, which also runs what stands between."""
    return machines[1]


# The proxy.


def test_the_wrong_proxy(client: Host) -> None:
    with serve(client, answer(b"220 mail.example ESMTP\r\n")) as port:
        found = check("wss://lan.example/", client.namespace, choice=ProxyChoice(f"http://127.0.0.1:{port}"))
        said = tried("wss://lan.example/", client.namespace, choice=ProxyChoice(f"http://127.0.0.1:{port}"))
    said.names(f"the proxy http://127.0.0.1:{port}", "not HTTP but the protocol of a mail", "HTTP proxy?")
    found.fails("proxy", f"the proxy http://127.0.0.1:{port}", "not HTTP but the protocol of a mail", "HTTP proxy?")
    with serve(client, hang) as port:
        choice = ProxyChoice(environ={"https_proxy": f"socks5://127.0.0.1:{port}"})
        found = check("wss://lan.example/", client.namespace, choice=choice, timeout=SHORT)
        said = tried("wss://lan.example/", client.namespace, choice=choice, timeout=SHORT)
    said.names(f"no answer from the proxy socks5://127.0.0.1:{port} within 0.3 s; is it a proxy of that kind")
    found.names("proxy", Verdict.OK, "(from https_proxy)")
    found.fails("proxy", "no answer within 0.3 s", "of the kind socks5://")
    found = check("wss://lan.example/", client.namespace, choice=ProxyChoice("http://127.0.0.1:1"))
    found.fails("tcp", "the proxy at 127.0.0.1:1", "refused", "is it running")


def test_a_proxy_that_wants_a_login(client: Host) -> None:
    asking = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=x\r\n\r\n"
    with serve(client, answer(asking)) as port:
        found = check("wss://lan.example/", client.namespace, choice=ProxyChoice(f"http://127.0.0.1:{port}"))
        said = tried("wss://lan.example/", client.namespace, choice=ProxyChoice(f"http://127.0.0.1:{port}"))
    said.names("the proxy", "answered 407", "offers Basic", f"http://USER:PASSWORD@127.0.0.1:{port}")
    found.fails("proxy", "answered 407", "offers Basic", f"http://USER:PASSWORD@127.0.0.1:{port}")
    with serve(client, answer(asking.replace(b"Basic realm=x", b"Negotiate"))) as port:
        found = check("wss://lan.example/", client.namespace, choice=ProxyChoice(f"http://127.0.0.1:{port}"))
    found.fails("proxy", "offers Negotiate", "px or cntlm")


def test_a_proxy_that_forbids_the_server(client: Host) -> None:
    with serve(client, answer(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")) as port:
        found = check("wss://lan.example:8443/", client.namespace, choice=ProxyChoice(f"http://127.0.0.1:{port}"))
    found.fails("proxy", "answered 403", "does it allow CONNECT to port 8443?")


# Addresses. The names are asked for elsewhere: tests/check/path/test_names.py.


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Gives the server's name these addresses."""

    def give(*found: str) -> None:
        def look_up(host: str, port: int, family: int) -> list[Any]:
            return [
                (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
                for each in found
            ]

        monkeypatch.setattr(names, "look_up", look_up)

    return give


def refusing() -> Talk:
    """A server that lets nobody in, and has a clock."""
    date = format_datetime(datetime.datetime.now(datetime.timezone.utc), usegmt=True)
    return answer(f"HTTP/1.1 404 Not Found\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n".encode())


def keeps(connection: socket.socket, asked: bytes) -> None:
    """A server that lets the client in, and keeps it."""
    if asked:
        connection.sendall(switching(asked))
        connection.recv(1)


def connects_beside(client: Host, dead: str) -> Said:
    """What a client says if the first address of the server's name is dead, and the second one works."""
    with serve(client, keeps) as port:
        found = [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
            for each in (dead, "127.0.0.1")
        ]
        connected = lambda client: client.link.state == CONNECTED  # noqa: E731
        return tried(f"ws://lan.example:{port}/", client.namespace, when=connected, addresses=found)


def test_a_dead_address_among_good_ones(client: Host, addresses: Callable[..., None]) -> None:
    with serve(client, refusing()) as port:
        addresses("127.0.0.1", NO_ANSWER_AT)
        found = check(f"ws://lan.example:{port}/", client.namespace, timeout=SHORT)
        # The client sees a dead address only if that comes first.
        said = connects_beside(client, NO_ANSWER_AT)
    said.warns(f"lan.example has an address that does not work, {NO_ANSWER_AT} (no answer); 127.0.0.1 does")
    found.names("tcp", Verdict.OK, f"127.0.0.1:{port} answers in")
    hint = found.names("tcp", Verdict.WARNING, NO_ANSWER_AT, "no answer within", "take its address out").hint
    assert "IPv4" not in hint


def test_ipv6_is_broken(client: Host, addresses: Callable[..., None]) -> None:
    with serve(client, refusing()) as port:
        addresses(NO_ANSWER_AT_V6, "127.0.0.1")
        found = check(f"ws://lan.example:{port}/", client.namespace, timeout=SHORT)
        said = connects_beside(client, NO_ANSWER_AT_V6)
    said.warns(f"IPv6 does not work on the path to lan.example, {NO_ANSWER_AT_V6} (no answer)", "--ipv4")
    found.names("tcp", Verdict.WARNING, "[2001:db8::9]", "IPv6 does not work on this path, IPv4 does", "--ipv4")


def test_a_blocked_port(client: Host) -> None:
    said = tried(f"wss://{NO_ANSWER_AT}/", client.namespace, timeout=SHORT)
    said.names(f"no answer within 0.3 s from {NO_ANSWER_AT}:443", "does a firewall drop it")
    found = check(f"wss://{NO_ANSWER_AT}/", client.namespace, timeout=SHORT)
    found.fails("tcp", f"{NO_ANSWER_AT}:443", "no answer within 0.3 s", "does a firewall drop it")
    found = check("wss://127.0.0.1:1/", client.namespace)
    found.fails("tcp", "Connection refused", "is it running there")


# TLS.


@contextlib.contextmanager
def tls_server(host: Host, pair: Certificate, talk: Talk | None = None, address: str = "127.0.0.1") -> Iterator[int]:
    """A server in TLS; gives its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    context.set_alpn_protocols(["http/1.1"])
    with serve(host, talk or refusing(), lambda sock: context.wrap_socket(sock, server_side=True), address) as port:
        yield port


def test_an_authority_that_nobody_knows(client: Host, authority: Authority) -> None:
    with tls_server(client, authority.issue()) as port:
        found = check(f"wss://127.0.0.1:{port}/", client.namespace)
        said = tried(f"wss://127.0.0.1:{port}/", client.namespace)
    said.names("does not verify", "does not know the issuer 'etherws test CA'", "--cacert")
    found.fails("tls", "does not verify", "does not know the issuer", "--cacert")
    assert found.data("certificate")["chain"][0]["issuer"] == "CN=etherws test CA"


def test_a_certificate_that_has_expired(client: Host, authority: Authority) -> None:
    trust = Trust(cacert=str(authority.cert))
    with tls_server(client, authority.issue(days=(-9, -1.5))) as port:
        found = check(f"wss://127.0.0.1:{port}/", client.namespace, trust=trust)
        said = tried(f"wss://127.0.0.1:{port}/", client.namespace, trust=trust)
    said.names("certificate has expired", "renew it on the server", "or this machine's clock is wrong")
    found.fails("tls", "certificate has expired", "renew it on the server", "or this machine's clock is wrong")
    found.names("clock", Verdict.OK, "agree")
    with tls_server(client, authority.issue(days=(-9, 3))) as port:
        found = check(f"wss://127.0.0.1:{port}/", client.namespace, trust=trust)
    found.names("certificate", Verdict.WARNING, "(2 days)", "renew it on the server")


def test_tls_that_is_intercepted(client: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Authority(tmp_path, "Zscaler Intermediate Root CA")
    with tls_server(client, made.issue()) as port:
        found = check(f"wss://127.0.0.1:{port}/", client.namespace, trust=Trust(cacert=str(made.cert)))
        found.names("interception", Verdict.WARNING, "Zscaler intercepts TLS", "leave this server out")
    with tls_server(client, made.issue(), keeps) as port:
        trust = Trust(cacert=str(made.cert))
        connected = lambda client: client.link.state == CONNECTED  # noqa: E731
        said = tried(f"wss://127.0.0.1:{port}/", client.namespace, trust=trust, when=connected)
        said.warns("Zscaler intercepts TLS", "leave this server out", "--pinnedpubkey")
        # A firm's own authority in the system's store.
        own = Authority(tmp_path, "Example Corp Proxy CA")
        monkeypatch.setenv("SSL_CERT_FILE", str(own.cert))
    with tls_server(client, own.issue()) as port:
        found = check(f"wss://127.0.0.1:{port}/", client.namespace)
    found.names("interception", Verdict.NOTE, "'Example Corp Proxy CA'", "none of the usual", "--pinnedpubkey sha256//")


def test_a_client_certificate_that_is_missing(client: Host, authority: Authority) -> None:
    pair = authority.issue()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.cert, pair.key)
        context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, version
        with serve(client, refusing(), partial(context.wrap_socket, server_side=True)) as port:
            found = check(f"wss://127.0.0.1:{port}/", client.namespace, trust=Trust(cacert=str(authority.cert)))
        found.fails("login", "it wants a certificate from this client", "--certfile")


def test_tls_that_is_too_old(client: Host, authority: Authority) -> None:
    pair = authority.issue()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(pair.cert, pair.key)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serve(client, refusing(), partial(context.wrap_socket, server_side=True)) as port:
        found = check(f"wss://127.0.0.1:{port}/", client.namespace, trust=Trust(cacert=str(authority.cert)))
    found.fails("tls", "the server speaks TLSv1.1 at most", "update the server's TLS")


def test_a_clock_that_is_wrong(client: Host, authority: Authority) -> None:
    ahead = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=3)
    dated = (
        f"HTTP/1.1 404 Not Found\r\nDate: {format_datetime(ahead, usegmt=True)}\r\nContent-Length: 0\r\n\r\n".encode()
    )
    trust = Trust(cacert=str(authority.cert))
    with tls_server(client, authority.issue(days=(1, 30)), answer(dated)) as port:
        found = check(f"wss://127.0.0.1:{port}/", client.namespace, trust=trust)
        said = tried(f"wss://127.0.0.1:{port}/", client.namespace, trust=trust)
    said.names("not yet valid", "or this machine's clock is wrong: it says")
    found.fails("tls", "not yet valid", "clock is wrong")
    found.names("clock", Verdict.WARNING, "this machine's clock is 3 days behind the server's", "NTP")


def test_a_black_hole_for_large_packets(machines: tuple[Host, Host], authority: Authority) -> None:
    server, client = machines
    # A long certificate takes several packets; the client's firewall drops the full ones, and tells nobody.
    pair = authority.issue(("192.0.2.1", *(f"name-{number}.example" for number in range(100))))
    without_offloads(server.namespace, "eth0")
    client.command("nft add table inet narrow")
    client.command("nft add chain inet narrow in { type filter hook input priority 0 ; }")
    client.command("nft add rule inet narrow in iifname eth0 meta length > 1000 drop")
    try:
        with tls_server(server, pair, address="192.0.2.1") as port:
            trust = Trust(cacert=str(authority.cert))
            found = check(f"wss://192.0.2.1:{port}/", client.namespace, trust=trust, timeout=1.0)
            said = tried(f"wss://192.0.2.1:{port}/", client.namespace, trust=trust, timeout=SHORT)
    finally:
        client.command("nft delete table inet narrow")
    said.names("no answer within 0.3 s to TLS", "are large packets lost on the way (path MTU)")
    found.names("path mtu", Verdict.FAILED, "only with packets of 536 bytes or less", "path MTU black hole", "mtu 1400")
    # The check goes on with small ones.
    found.names("tls", Verdict.OK, "TLSv1.3")


# HTTP, and a real server behind what stands between.


#: The rates keep what the path is measured with from taking a processor.
_POLICY = """
[default]
rate-up = "4 Mbit/s"
rate-down = "4 Mbit/s"
[client."mallory"]
connect = false
"""


class RealServer:
    """A server that knows branch1 and branch2, lets mallory not in, and has one place."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.tokens: dict[str, str] = {}
        for name in ("branch1", "branch2", "mallory"):
            passwd.add_token(str(folder / "tokens"), name, partial(self.tokens.__setitem__, name))
        (folder / "policy.toml").write_text(_POLICY)
        self.host = host
        self.process: Process = host.etherws(
            "server", "--foreground", "--port", "0", "--address", "192.0.2.1", "--device", "lan0",
            "--token-file", str(folder / "tokens"), "--policy", str(folder / "policy.toml"),
        )  # fmt: skip
        said = self.process.says("listening on ws://")
        self.port = int(said.partition("listening on ws://192.0.2.1:")[2].partition("/")[0])
        self.uri = f"ws://192.0.2.1:{self.port}/"

    def logs_refusal(self, said: Said, words: str) -> None:
        """The server's log has a line with these words, and the number that the client's line ends with."""
        number = re.findall(r"\(refusal [0-9a-f]{8}\)", said.status["link"]["last_error"])[-1]
        assert number in said.shown
        output = self.process.says(number)
        assert any(words in line and number in line for line in output.splitlines()), output


@pytest.fixture(scope="module")
def real(machines: tuple[Host, Host], tmp_path_factory: pytest.TempPathFactory) -> RealServer:
    """One server for the tests that follow."""
    return RealServer(machines[0], tmp_path_factory.mktemp("server"))


def test_nothing_is_wrong(client: Host, real: RealServer, tmp_path: Path) -> None:
    """As users type it, in a process of its own."""
    (tmp_path / "token").write_text(real.tokens["branch1"])
    process = client.etherws("check", real.uri, "--token-file", str(tmp_path / "token"), "--json")
    assert process.ends() == 0, process.output
    document = json.loads(process.output)
    findings = [Finding(each["topic"], each["found"], Verdict(each["verdict"])) for each in document["findings"]]
    found = Found(findings)
    assert Verdict.FAILED not in {each.verdict for each in findings}, str(found)
    found.names("http", Verdict.OK, "answered 101")
    found.names("login", Verdict.OK, "taken the credentials")
    found.names("features", Verdict.OK, "version 2")
    found.names("rate up", Verdict.NOTE, "the server's policy allows this client 4 Mbit/s")
    found.names("clock", Verdict.OK, "agree")


def test_a_token_that_was_revoked(client: Host, real: RealServer) -> None:
    found = check(real.uri, client.namespace, token="x" * 43)
    found.fails("login", "does not accept this token", "it may have been revoked", "etherws passwd")
    said = tried(real.uri, client.namespace, token="x" * 43)
    said.names("401 Unauthorized; it does not accept this token")
    real.logs_refusal(said, "login refused: wrong token")
    found = check(real.uri, client.namespace)
    found.fails("login", "it asks for a token (--token-file)")


def test_a_client_that_the_policy_refuses(client: Host, real: RealServer) -> None:
    found = check(real.uri, client.namespace, token=real.tokens["mallory"])
    found.fails("policy", "the policy does not let this client connect", "connect = false")
    said = tried(real.uri, client.namespace, token=real.tokens["mallory"])
    said.names("403 Forbidden", "the policy does not let this client connect")
    real.logs_refusal(said, "the policy does not let")


def relay(real: RealServer, client: Host, change: Callable[[bytes], bytes], mark: bytes = b"") -> Talk:
    """A proxy that changes the request, adds its mark to the answer, and passes one answer on."""

    def talk(near: socket.socket, asked: bytes) -> None:
        if not asked:
            return
        with client.namespace.inside(), socket.create_connection(("192.0.2.1", real.port), PATIENCE) as far:
            far.sendall(change(asked))
            said = b""
            while data := far.recv(65536):
                said += data
            near.sendall(said.replace(b"\r\n", b"\r\n" + mark, 1) if mark else said)

    return talk


def without(*headers: bytes) -> Callable[[bytes], bytes]:
    """Drops these headers."""

    def change(asked: bytes) -> bytes:
        lines = asked.split(b"\r\n")
        return b"\r\n".join(line for line in lines if not line.lower().startswith(headers))

    return change


def test_an_upgrade_that_was_stripped(client: Host, real: RealServer) -> None:
    token = real.tokens["branch1"]
    nginx = b"Server: nginx/1.22.1\r\n"
    with serve(client, relay(real, client, without(b"upgrade:", b"connection:"), nginx)) as port:
        found = check(f"ws://127.0.0.1:{port}/", client.namespace, token=token)
        said = tried(f"ws://127.0.0.1:{port}/", client.namespace, token=token)
    said.names("426 Upgrade Required", "does a proxy between drop the Upgrade header?", "docs/reverse-proxies.rst")
    real.logs_refusal(said, "the Upgrade header does not say")
    found.fails("upgrade", "etherws did not get Upgrade: nginx has dropped it", "proxy_set_header Upgrade")
    cloudflare = b"Server: cloudflare\r\nCF-RAY: 8f00-FRA\r\n"
    with serve(client, relay(real, client, without(b"upgrade:", b"sec-websocket", b"connection:"), cloudflare)) as port:
        found = check(f"ws://127.0.0.1:{port}/", client.namespace, token=token)
    found.fails("upgrade", "did not get Upgrade and Sec-WebSocket-Key: Cloudflare has", "--protocol http2")
    with serve(client, relay(real, client, without(b"upgrade:"))) as port:
        found = check(f"ws://127.0.0.1:{port}/", client.namespace, token=token)
    found.fails("upgrade", "a proxy on the way has dropped it", "use wss://")
    with serve(client, relay(real, client, without(b"authorization:"), nginx)) as port:
        found = check(f"ws://127.0.0.1:{port}/", client.namespace, token=token)
        said = tried(f"ws://127.0.0.1:{port}/", client.namespace, token=token)
    said.names("it got no credentials, though they were sent", "drop the Authorization header?")
    found.fails("login", "got no credentials, though they were sent: nginx", "pass Authorization on")


def endless(head: bytes, piece: bytes) -> Talk:
    """A server whose answer begins like this, and never ends. It sends a piece each 10 ms."""

    def talk(connection: socket.socket, asked: bytes) -> None:
        connection.sendall(head)
        while asked:
            connection.sendall(piece)
            threading.Event().wait(0.01)

    return talk


@pytest.mark.parametrize(
    ("talk", "words"),
    [
        (endless(b"HTTP/1.1 101 x\r\n", b"A: " + b"b" * 4000), "headers of over 16384 bytes"),
        (endless(b"HTTP/1.1 101 x\r\n", b"A"), "no answer within 0.3 s"),
        (endless(b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"), "interim answers"),
        (endless(b"\x00\xff\r\n", b"\x1b[31m"), "that is not HTTP"),
        (hang, "no answer within 0.3 s"),
    ],
)
def test_a_hostile_server_costs_bounded_time_and_words(client: Host, talk: Talk, words: str) -> None:
    with serve(client, talk) as port:
        found = check(f"ws://127.0.0.1:{port}/", client.namespace, timeout=SHORT)
        failures = [each for each in found.findings if each.verdict is Verdict.FAILED]
    assert len(failures) == 1
    assert words in f"{failures[0].found} {failures[0].hint}"
    assert all(len(each.found) < 1000 for each in found.findings)


def test_a_reset_after_the_101(client: Host) -> None:
    def talk(connection: socket.socket, asked: bytes) -> None:
        if b"Sec-WebSocket-Key" in asked:
            connection.sendall(switching(asked))
        # A RST in place of a FIN: socket(7), SO_LINGER.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with serve(client, talk) as port:
        found = check(f"ws://127.0.0.1:{port}/", client.namespace)
        said = tried(f"ws://127.0.0.1:{port}/", client.namespace, when=lambda client: client.link.state == WAITING)
    said.names("lost ws://", "right after the 101; does a proxy or a firewall between", "wss://")
    found.fails("after 101", "ended right after the 101", "use wss://")


def impatient(real: RealServer, client: Host, seconds: float) -> Talk:
    """A proxy that cuts a connection on which nothing has come for so long."""

    def talk(near: socket.socket, asked: bytes) -> None:
        with client.namespace.inside(), socket.create_connection(("192.0.2.1", real.port), PATIENCE) as far:
            far.sendall(asked)
            while ready := select.select([near, far], [], [], seconds)[0]:
                for source in ready:
                    data = source.recv(65536)
                    if not data:
                        return
                    (far if source is near else near).sendall(data)

    def in_thread(near: socket.socket, asked: bytes) -> None:
        if asked:
            # The listener goes on: several connections are open at once.
            copy = near.dup()
            copy.settimeout(PATIENCE)
            threading.Thread(target=lambda: _closing(talk, copy, asked)).start()

    return in_thread


def _closing(talk: Talk, near: socket.socket, asked: bytes) -> None:
    with contextlib.suppress(OSError), near:
        talk(near, asked)


def test_a_proxy_that_cuts_what_is_idle(client: Host, real: RealServer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Shorter than any path's, as is the time after which the proxy cuts: 30 s in life.
    monkeypatch.setattr(idle_findings, "SILENCES", (0.1,))
    with serve(client, impatient(real, client, 0.4)) as port:
        found = check(f"ws://127.0.0.1:{port}/", client.namespace, token=real.tokens["branch1"], idle=2.0)
    monkeypatch.setattr(losses, "RIGHT_AFTER", 0.1)
    monkeypatch.setattr(losses, "SILENCE", 0.2)
    with serve(client, impatient(real, client, 0.4)) as port:
        quiet = ClientSettings(ping_interval=0.0)
        said = tried(f"ws://127.0.0.1:{port}/", client.namespace, token=real.tokens["branch1"], settings=quiet)
    said.names("lost ws://", "after the last byte", "cut what is idle?", "--ping-interval")
    found.names("idle", Verdict.WARNING, "cut after about 0 s of silence", "--ping-interval", "a proxy, a firewall")


def test_a_server_that_is_full(client: Host, real: RealServer) -> None:
    peer = Peer(client, ("192.0.2.1", real.port))
    peer.say(request(Authorization=f"Bearer {real.tokens['branch2']}"))
    assert b" 101 " in peer.head()
    found = check(real.uri, client.namespace, token=real.tokens["branch1"])
    found.fails("server", "no port for one more client: it is full", "a bridge for more (--bridge)")
    said = tried(real.uri, client.namespace, token=real.tokens["branch1"])
    said.names("503 Service Unavailable", "no port is free for one more client")
    real.process.says("serves another client and is in no bridge")
