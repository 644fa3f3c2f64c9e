"""Connections through proxies, on three machines: real squid and SOCKS servers, and proxies that misbehave; and to the
first of several addresses that answers.

    client 198.51.100.2 -- 198.51.100.1 proxy 192.0.2.2 -- 192.0.2.1 server      no way but through the proxy
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import pytest

from etherws.client import dial, http_auth
from etherws.client.dial import connect_first, interleave
from etherws.client.proxies import http_connect, socks5_connect
from etherws.client.proxy_choice import Proxy, ProxyChoice
from etherws.errors import ConnectError
from tests.lab.frames import KINDS, frame
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.pki import Certificate
from tests.lab.servers import Talk, answer, hang, serve, switching
from tests.lab.sockets import gevent_pair

#: How a process starts is not what is tested here.
pytestmark = pytest.mark.usefixtures("forks_etherws")

SQUID = """
http_port 198.51.100.1:3128
https_port 198.51.100.1:3129 tls-cert={folder}/proxy.crt tls-key={folder}/proxy.key
pid_filename none
cache deny all
cache_mem 1 MB
memory_cache_shared off
cache_log /dev/null
access_log none
netdb_filename none
coredump_dir none
pinger_enable off
shutdown_lifetime 0 seconds
max_filedescriptors 256
visible_hostname proxy
dns_nameservers 127.0.0.1
acl nowhere dst 192.0.2.66
http_access deny nowhere
{access}
"""

OPEN = "http_access allow all"
LIBRARY = "/usr/lib/squid"
BASIC = f"auth_param basic program {LIBRARY}/basic_ncsa_auth {{folder}}/basic\nauth_param basic children 1"
DIGEST = f"""
auth_param digest program {LIBRARY}/digest_file_auth -c {{folder}}/digest
auth_param digest realm etherws
auth_param digest children 1
"""
NTLM = f"auth_param ntlm program {LIBRARY}/ntlm_fake_auth\nauth_param ntlm children 1"
MEMBERS = "acl members proxy_auth REQUIRED\nhttp_access allow members\nhttp_access deny all"

USER, PASSWORD = "ether", "s3cr3t:/@ %"
LOGIN = "ether:s3cr3t%3A%2F%40%20%25"


class Way(NamedTuple):
    """The three machines, and a folder that squid can read."""

    client: Host
    proxy: Host
    server: Host
    folder: Path

    def squid(self, access: str = OPEN) -> None:
        """Start squid, and wait until it listens."""
        if not shutil.which("squid", path=os.environ["PATH"] + ":/usr/sbin"):
            pytest.skip("no program squid on this machine")
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            pytest.skip("squid wants to become another user, and there is none in a user namespace")
        secret = hashlib.md5(f"{USER}:etherws:{PASSWORD}".encode()).hexdigest()
        (self.folder / "digest").write_text(f"{USER}:etherws:{secret}\n")
        hashed = subprocess.run(["openssl", "passwd", "-apr1", PASSWORD], capture_output=True, text=True, check=True)
        (self.folder / "basic").write_text(f"{USER}:{hashed.stdout}")
        (self.folder / "conf").write_text(SQUID.format(folder=self.folder, access=access.format(folder=self.folder)))
        env = {"PATH": os.environ["PATH"] + ":/usr/sbin"}
        name = f"etherws{os.getpid()}"
        self.proxy.run("squid", "-N", "-d1", "-f", str(self.folder / "conf"), "-n", name, env=env).says(
            "Accepting HTTPS Socket connections"
        )

    def socks(self, *options: str) -> None:
        """Start microsocks, and wait until it listens."""
        if not shutil.which("microsocks"):
            pytest.skip("no program microsocks on this machine")
        self.proxy.run("microsocks", "-i", "198.51.100.1", "-p", "1080", *options)

        def listens() -> bool:
            with self.client.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
                return sock.connect_ex(("198.51.100.1", 1080)) == 0

        until(listens, "the SOCKS server to listen")

    def dial(self, *options: str, **environ: str) -> Process:
        """Start a client in front."""
        return self.client.etherws("client", "--foreground", *options, env=environ)


@pytest.fixture
def way(network: None, certificate: Certificate) -> Iterator[Way]:
    """Three machines in a row."""
    with contextlib.ExitStack() as stack:
        client, proxy, server = (stack.enter_context(contextlib.closing(Host())) for _ in range(3))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        for name in ("crt", "key"):
            copy = folder / f"proxy.{name}"
            copy.write_bytes((certificate.cert if name == "crt" else certificate.key).read_bytes())
            copy.chmod(0o644)
        client.namespace.cable("eth0", proxy.namespace, "eth0")
        server.namespace.cable("eth0", proxy.namespace, "eth1")
        client.namespace.configure("eth0", "198.51.100.2/24")
        proxy.namespace.configure("eth0", "198.51.100.1/24")
        proxy.namespace.configure("eth1", "192.0.2.2/24")
        server.namespace.configure("eth0", "192.0.2.1/24")
        yield Way(client, proxy, server, folder)


def uri(way: Way, secure: bool, certificate: Certificate) -> list[str]:
    """Start a server; return what a client is told about it."""
    if secure:
        options = "--keyfile", str(certificate.key), "--certfile", str(certificate.cert)
        way.server.etherws("server", "--foreground", *options).says("listening on wss://")
        return ["wss://192.0.2.1/", "--cacert", str(certificate.cert)]
    way.server.etherws("server", "--foreground").says("listening on ws://")
    return ["ws://192.0.2.1/"]


def frames_pass(one: Host, other: Host) -> None:
    """Frames of every kind and a few hundred large ones, both ways."""
    ends = [machine.frames("ethws0") for machine in (one, other)]
    many = [frame(1514, seed=number) for number in range(300)]
    for sender, receiver in (ends, reversed(ends)):
        for name, sent in KINDS.items():
            sender.send(sent)
            assert receiver.receive() == sent, name
        for sent in many:
            sender.send(sent)
        assert [receiver.receive() for _ in many] == many


PROXIES = {
    "http": ("http://198.51.100.1:3128", OPEN),
    "https": ("https://198.51.100.1:3129", OPEN),
    "Basic": (f"http://{LOGIN}@198.51.100.1:3128", f"{BASIC}\n{MEMBERS}"),
    "Digest": (f"http://{LOGIN}@198.51.100.1:3128", f"{DIGEST}\n{MEMBERS}"),
    "both": (f"https://{LOGIN}@198.51.100.1:3129", f"{BASIC}\n{DIGEST}\n{MEMBERS}"),
    "socks5": ("socks5://198.51.100.1:1080", ""),
    "socks5 with a password": (f"socks5h://{LOGIN}@198.51.100.1:1080", "password"),
}


@pytest.mark.parametrize(
    ("kind", "secure"),
    # What goes on behind a login is the same as without one.
    [*((kind, False) for kind in PROXIES), *((kind, True) for kind in ("http", "https", "socks5"))],
)
def test_frames_pass_through_every_kind_of_proxy(way: Way, certificate: Certificate, kind: str, secure: bool) -> None:
    url, access = PROXIES[kind]
    if url.startswith("socks5"):
        way.socks(*(["-u", USER, "-P", PASSWORD] if access else []))
    else:
        way.squid(access)
    variable = "https_proxy" if secure else "http_proxy"
    client = way.dial(*uri(way, secure, certificate), **{variable: url, "SSL_CERT_FILE": str(certificate.cert)})
    output = client.says("connected to ws")
    shown = url.replace(f"{LOGIN}@", "").replace("socks5h", "socks5")
    assert f"through the proxy {shown} (from {variable})\n" in output
    frames_pass(way.client, way.server)
    client.stop()
    assert "s3cr3t" not in client.output


@pytest.mark.parametrize(
    ("access", "login", "words"),
    [
        (
            f"{BASIC}\n{DIGEST}\n{MEMBERS}",
            "",
            "answered 407: it offers Basic, Digest to authenticate; write the user and password into its URL,"
            " http://USER:PASSWORD@198.51.100.1:3128",
        ),
        (f"{BASIC}\n{MEMBERS}", "ether:wrong@", "does not accept this user and password; it offers Basic"),
        (f"{DIGEST}\n{MEMBERS}", "ether:wrong@", "does not accept this user and password; it offers Digest"),
        (f"{NTLM}\n{MEMBERS}", f"{LOGIN}@", "it offers NTLM to authenticate; run px or cntlm on this machine"),
        (f"{NTLM}\n{MEMBERS}", "", "it offers NTLM to authenticate; run px or cntlm on this machine"),
    ],
)
def test_a_407_names_what_the_proxy_offers(way: Way, access: str, login: str, words: str) -> None:
    way.squid(access)
    client = way.dial("ws://192.0.2.1/", "--debug", http_proxy=f"http://{login}198.51.100.1:3128")
    output = client.says(words)
    assert "cannot connect to ws://192.0.2.1:80: the proxy http://198.51.100.1:3128: " in output
    client.stop()
    assert "s3cr3t" not in client.output


def test_what_squid_cannot_or_may_not_reach_is_reported(way: Way) -> None:
    way.squid()
    for server, words in (
        ("192.0.2.1", "answered 503 Service Unavailable; it cannot reach 192.0.2.1:80"),
        ("192.0.2.66", "answered 403 Forbidden; it does not let this client reach 192.0.2.66:80"),
    ):
        client = way.dial(f"ws://{server}/", "-x", "198.51.100.1:3128")
        client.says(f"the proxy http://198.51.100.1:3128: {words}")
        client.stop()


def test_a_socks_proxy_looks_the_name_up_itself(way: Way, certificate: Certificate) -> None:
    way.socks()
    # On the proxy, "localhost" is the proxy itself.
    options = "--keyfile", str(certificate.key), "--certfile", str(certificate.cert)
    way.proxy.etherws("server", "--foreground", *options).says("listening on wss://")
    client = way.dial("wss://localhost/", "--cacert", str(certificate.cert), "-x", "socks5://198.51.100.1")
    client.says("connected to wss://localhost")
    frames_pass(way.client, way.proxy)
    client.stop()


@pytest.mark.parametrize(
    ("login", "options", "words"),
    [
        ("", ["-u", "a", "-P", "b"], "asks for a user and password; write them into its URL, socks5://USER:PASSWORD@"),
        ("a:wrong@", ["-u", "a", "-P", "b"], "does not accept this user and password"),
        ("", [], "cannot reach 192.0.2.1:80: connection refused"),
    ],
)
def test_what_a_socks_proxy_refuses_is_reported(way: Way, login: str, options: list[str], words: str) -> None:
    way.socks(*options)
    client = way.dial("ws://192.0.2.1/", all_proxy=f"socks5://{login}198.51.100.1:1080")
    client.says(f"cannot connect to ws://192.0.2.1:80: the proxy socks5://198.51.100.1:1080: {words}")
    client.stop()


def test_an_https_proxy_is_verified(way: Way) -> None:
    way.squid()
    for url, words in (
        ("https://198.51.100.1:3129", "its certificate does not verify: self-signed certificate"),
        ("https://198.51.100.1:3128", "TLS failed"),
    ):
        client = way.dial("ws://192.0.2.1/", "--proxy", url)
        client.says(f"the proxy {url}: {words}")
        client.stop()


def test_the_proxy_is_logged_once_and_without_it_the_server_is_unreachable(way: Way) -> None:
    proxy = "http://198.51.100.1:3128"
    client = way.dial("ws://192.0.2.1/", "--debug", "--retry-interval", "10ms", http_proxy=proxy)
    # Nobody listens there.
    client.says(f"the proxy {proxy}: Connection refused", times=4)
    assert client.output.count("through the proxy") == 1
    client.stop()
    for options in (["--proxy", ""], ["--noproxy", "10.0.0.0/8,192.0.2.0/24"]):
        client = way.dial("ws://192.0.2.1/", *options, http_proxy=proxy)
        client.says("cannot connect to ws://192.0.2.1:80: Network is unreachable")
        assert ("directly to 192.0.2.1: --noproxy excludes it from the proxy in http_proxy" in client.output) == (
            len(options[1]) > 0
        )
        client.stop()


def test_a_password_of_a_proxy_is_seen_nowhere(way: Way) -> None:
    url = f"http://{LOGIN}@198.51.100.1:3128"
    for options, env in ((["-x", url], {}), ([], {"ETHERWS_CLIENT_PROXY": url})):
        client = way.dial("ws://192.0.2.1/", *options, **env)
        client.says("through the proxy http://198.51.100.1:3128 (from --proxy)")
        client.says("cannot connect")
        secret = LOGIN.partition(":")[2]
        assert secret not in client.output
        assert secret.encode() not in Path(f"/proc/{client.pid}/cmdline").read_bytes()
        client.stop()


BAD_PROXIES: dict[str, tuple[Talk, str]] = {
    "hangs": (hang, "no answer from the proxy {url} within 0.3 s"),
    "hangs up": (answer(b""), "the proxy {url}: ended the connection without an answer"),
    "answers rubbish": (answer(b"220 mail.example ESMTP\r\n\r\n"), "the proxy {url}: gave an answer that is not HTTP"),
    "has endless headers": (answer(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000), "headers of over 16384 bytes"),
    "answers 502": (answer(b"HTTP/1.1 502 \x1b[2J\r\n\r\n"), "{url}: answered 502 Bad Gateway; it cannot reach"),
    "answers 799": (answer(b"HTTP/1.0 799\r\n\r\n"), "{url}: answered 799 unknown status"),
    "offers nothing": (answer(b"HTTP/1.1 407 Who\r\n\r\n"), "it offers no way to authenticate; etherws has Basic"),
    "offers what is unknown": (
        answer(b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Hawk\r\n\r\n"),
        "it offers Hawk to authenticate; etherws has Basic and Digest",
    ),
    "never has enough": (
        answer(b'HTTP/1.1 407 Who\r\nProxy-Authenticate: Digest realm="", nonce="", qop="auth", stale=true\r\n\r\n'),
        "asks for the user and password again and again",
    ),
}


@pytest.mark.parametrize("case", BAD_PROXIES)
def test_a_proxy_that_misbehaves_is_named_and_retried(host: Host, case: str) -> None:
    talk, words = BAD_PROXIES[case]
    with serve(host, talk) as port:
        url = f"http://127.0.0.1:{port}"
        client = host.etherws(
            "client", "--foreground", "--debug", "ws://192.0.2.1/",
            "--connect-timeout", "300ms", "--retry-interval", "10ms", env={"http_proxy": url.replace("//", "//u:p@")},
        )  # fmt: skip
        client.says(words.format(url=url), times=3)
        assert "\x1b" not in client.output
        client.stop()


Stream = Callable[[bytes], tuple[Any, Any]]


@pytest.fixture
def stream() -> Iterator[Stream]:
    """Makes a socket whose other end has sent these bytes and closed its side; and the other end."""
    with contextlib.ExitStack() as stack:

        def make(said: bytes) -> tuple[Any, Any]:
            one, other = (stack.enter_context(end) for end in gevent_pair())
            other.sendall(said)
            other.shutdown(socket.SHUT_WR)
            return one, other

        yield make


def test_what_a_proxy_sends_behind_its_answer_is_left_to_the_tunnel(stream: Stream) -> None:
    one, other = stream(b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\n\r\nearly")
    assert http_connect(Proxy("http", "proxy", 80), "2001:db8::1", 443, lambda: one).recv(100) == b"early"
    request = other.recv(1000).decode()
    assert request.startswith("CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: [2001:db8::1]:443\r\nUser-Agent: etherws/")
    assert request.endswith("\r\n\r\n")
    assert "Authorization" not in request


@pytest.mark.parametrize(
    ("bound", "host", "asked"),
    [
        (b"\1\x7f\0\0\1\0\x50", "server", b"\3\6server"),
        (b"\4" + bytes(18), "192.0.2.1", b"\1\xc0\0\2\1"),
        (b"\3\5proxy\0\x50", "2001:db8::1", b"\4\x20\x01\x0d\xb8" + bytes(11) + b"\1"),
    ],
)
def test_socks_as_in_the_rfc(stream: Stream, bound: bytes, host: str, asked: bytes) -> None:
    one, other = stream(b"\5\0" + b"\5\0\0" + bound + b"early")
    socks5_connect(Proxy("socks5", "proxy", 1080), host, 443, one)
    assert one.recv(100) == b"early"
    assert other.recv(1000) == b"\5\1\0" + b"\5\1\0" + asked + b"\1\xbb"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"", "ended the connection within its answer"),
        (b"HTTP/1.1 400 Bad Request", "gave an answer that is not SOCKS5"),
        (b"\5\xff", "offers no way to authenticate that etherws has"),
        (b"\5\1", "offers no way to authenticate that etherws has"),
        (b"\5\2\1\1", "does not accept this user and password"),
        (b"\5\0\5\0\0\3\xffshort", "ended the connection within its answer"),
        (b"\5\0\5\x63", "cannot reach server:443: reply 99"),
    ],
)
def test_a_socks_proxy_that_misbehaves(stream: Stream, said: bytes, words: str) -> None:
    one, _ = stream(said)
    with pytest.raises(ConnectError, match=words):
        socks5_connect(Proxy("socks5", "proxy", 1080, "user", "password"), "server", 443, one)


def test_a_name_that_is_too_long_for_socks_is_refused(stream: Stream) -> None:
    one, _ = stream(b"\5\0")
    with pytest.raises(ConnectError, match="longer than 255 bytes"):
        socks5_connect(Proxy("socks5", "proxy", 1080), "x." * 130, 443, one)


def test_a_stale_nonce_is_answered_anew(stream: Stream) -> None:
    offer = b'HTTP/1.1 407 Who\r\nProxy-Authenticate: Digest realm="r", nonce="%d", qop="auth"%s\r\n\r\n'
    ways = [stream(offer % (1, b"")), stream(offer % (2, b", stale=TRUE")), stream(b"HTTP/1.1 200 Fine\r\n\r\n")]
    fresh = iter(ways)
    proxy = Proxy("http", "proxy", 80, "user", "password")
    assert http_connect(proxy, "server", 443, lambda: next(fresh)[0]) is ways[2][0]
    requests = [other.recv(1000).decode() for _, other in ways]
    assert [request.count("Proxy-Authorization: Digest") for request in requests] == [0, 1, 1]
    assert 'nonce="2"' in requests[2]
    assert http_auth.parse([requests[2].split("Proxy-Authorization:")[1].strip()])[0].parameters["uri"] == "server:443"


@pytest.mark.parametrize(
    ("way", "login"),
    [("", []), ("Basic, ", []), ("Basic, ", ["user", "password"])],
    ids=["no way", "no login", "wrong login"],
)
def test_a_proxy_that_makes_up_schemes_gets_a_short_line_and_no_new_one(
    stream: Stream, way: str, login: list[str]
) -> None:
    errors: list[ConnectError] = []
    for first in ("Aa", "Bb"):
        schemes = way + ", ".join(first + "c" * number for number in range(150))
        said = f"HTTP/1.1 407 Who\r\nProxy-Authenticate: {schemes}\r\n\r\n".encode()
        ways = [stream(said) for _ in range(2)]
        with pytest.raises(ConnectError) as caught:
            http_connect(Proxy("http", "proxy", 80, *login), "server", 443, lambda ways=ways: ways.pop()[0])  # type: ignore[misc]
        errors.append(caught.value)
        assert len(str(caught.value)) < 500
    assert str(errors[0]) != str(errors[1])
    assert errors[0].kind == errors[1].kind


def test_headers_are_added_and_can_replace_the_host(host: Host) -> None:
    requests: list[bytes] = []

    def talk(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(switching(request))
        connection.recv(1)

    with serve(host, talk) as port:
        client = host.etherws(
            "client", "--foreground", "ws://server.invalid/lan?x=y", "--connect-to", f"127.0.0.1:{port}",
            env={"ETHERWS_CLIENT_HEADER": "host: front.example\nX-A: 1\nX-A: 2\nUser-Agent: me"},
        )  # fmt: skip
        client.says("connected to ws://server.invalid:80")
        client.stop()
    lines = requests[0].decode().split("\r\n")
    assert lines[0] == "GET /lan?x=y HTTP/1.1"
    assert {"host: front.example", "X-A: 1", "X-A: 2", "User-Agent: me"} <= set(lines)
    assert sum(line.lower().startswith(("host:", "user-agent:")) for line in lines) == 2


def test_with_connect_to_the_name_is_still_that_of_the_uri(way: Way, certificate: Certificate) -> None:
    way.squid()
    secure = uri(way, True, certificate)[1:]
    options = "--connect-to", "192.0.2.1:443", "-x", "http://198.51.100.1:3128"
    client = way.dial("wss://localhost/", *secure, *options)
    client.says("connected to wss://localhost:443")
    client.stop()
    client = way.dial("wss://other.invalid/", *secure, *options)
    client.says("its certificate does not verify: Hostname mismatch")
    client.stop()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-4", "-6"], "give --ipv4 or --ipv6, not both"),
        (["-H", "Upgrade: x"], "--header Upgrade is a part of the WebSocket handshake"),
        (["-H", "X"], "--header is malformed"),
        (["--connect-to", "server"], "--connect-to 'server': write HOST:PORT"),
        (["-x", "ftp://proxy"], "--proxy 'ftp://proxy': unknown kind of proxy"),
    ],
)
def test_unusable_options_are_refused_at_the_start(host: Host, arguments: list[str], words: str) -> None:
    client = host.etherws("client", "ws://server.invalid/", *arguments)
    assert client.ends() != 0
    assert words in client.output


def test_an_unusable_variable_is_refused_at_the_start(host: Host) -> None:
    client = host.etherws("client", "wss://server.invalid/", env={"https_proxy": "http://u:s3cr3t@proxy:x"})
    assert client.ends() == 1
    assert "https_proxy 'proxy:x' is not a proxy's URL" in client.output


def addresses(*ends: tuple[str, int]) -> list[Any]:
    """As of getaddrinfo()."""
    families = {True: socket.AF_INET6, False: socket.AF_INET}
    return [(families[":" in end[0]], socket.SOCK_STREAM, 6, "", end) for end in ends]


def test_families_take_turns() -> None:
    found = addresses(("::1", 1), ("::2", 1), ("::3", 1), ("192.0.2.1", 1), ("192.0.2.2", 1))
    assert [address[4][0] for address in interleave(found)] == ["::1", "192.0.2.1", "::2", "192.0.2.2", "::3"]
    assert interleave(found[3:]) == found[3:]
    assert interleave([]) == []


@pytest.fixture
def half(host: Host) -> tuple[Host, int]:
    """A machine that loses what is sent to ::1, 127.0.0.66 and 127.0.0.67, and a port that listens on 127.0.0.1."""
    rules = (
        "add table inet lossy; add chain inet lossy out { type filter hook output priority 0; };"
        " add rule inet lossy out ip6 daddr ::1 drop; add rule inet lossy out ip daddr 127.0.0.66/31 drop"
    )
    with tempfile.NamedTemporaryFile("w", suffix=".nft") as file:
        file.write(rules.replace(";", "\n").replace("priority 0\n", "priority 0;"))
        file.flush()
        host.command(f"nft -f {file.name}")
    listener = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    return host, listener.getsockname()[1]


def test_the_first_address_that_answers_is_taken_and_the_others_closed(half: tuple[Host, int]) -> None:
    host, port = half
    found = addresses(("::1", port), ("::1", 1), ("127.0.0.2", port), ("127.0.0.66", port), ("127.0.0.1", port))
    before = set(os.listdir("/proc/self/fd"))
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        sock = connect_first(found)
    assert sock.getpeername() == ("127.0.0.1", port)
    sock.close()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_time_out_leaves_nothing_open(half: tuple[Host, int]) -> None:
    host, port = half
    before = set(os.listdir("/proc/self/fd"))
    with host.namespace.inside(), pytest.raises(gevent.Timeout), gevent.Timeout(0.6):
        connect_first(addresses(("::1", port), ("127.0.0.66", port)))
    assert set(os.listdir("/proc/self/fd")) <= before


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ([("127.0.0.2", 1)], "^Connection refused; is it running there"),
        ([("192.0.2.9", 1), ("127.0.0.2", 1)], "^Connection refused by 127.0.0.2; is it running there"),
        ([("127.0.0.2", 1), ("192.0.2.9", 1)], "^Connection refused by 127.0.0.2; is it running there"),
        ([("2001:db8::1", 1), ("192.0.2.9", 1)], "^(Network is unreachable|Cannot assign requested address) by"),
    ],
)
def test_of_several_errors_the_most_useful_is_reported(host: Host, ends: list[tuple[str, int]], words: str) -> None:
    with host.namespace.inside(), pytest.raises(ConnectError, match=words):
        connect_first(addresses(*ends))


@pytest.mark.vm_too
def test_broken_ipv6_does_not_prevent_the_connection(half: tuple[Host, int], tmp_path: Path) -> None:
    host, _ = half
    names = tmp_path / "hosts"
    names.write_text("::1 both.test\n127.0.0.1 both.test\n")
    with_names = f'mount --bind {names} /etc/hosts && exec "$@"'

    def talk(connection: socket.socket, request: bytes) -> None:
        connection.sendall(switching(request))
        connection.recv(1)

    host.program("unshare")
    host.needs_mounts()
    with serve(host, talk) as port:
        # With IPv6 alone, TCP would need minutes to fail.
        for options, words in (
            ([], "connected to ws://both.test"),
            (["-4"], "connected to ws://both.test"),
            (["-6", "--connect-timeout", "500ms"], "no answer within 0.5 s"),
        ):
            client = host.run(
                "unshare", "-m", "sh", "-c", with_names, "sh", sys.executable, "-m", "etherws",
                "client", "--foreground", f"ws://both.test:{port}/", *options,
            )  # fmt: skip
            client.says(words)
            client.stop()


def test_a_further_connection_goes_to_the_very_address_of_the_first(
    half: tuple[Host, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = half
    looked_up: list[str] = []

    def found(name: str, *_: object) -> list[Any]:
        looked_up.append(name)
        # Another order each time, as a name server that spreads its clients gives.
        ends = [("127.0.0.1", port), ("127.0.0.2", port)]
        return addresses(*ends[:: 1 if len(looked_up) % 2 else -1])

    monkeypatch.setattr(dial, "look_up", found)
    # All of 127.0.0.0/8 is this machine.
    listener = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind(("127.0.0.2", port))
    listener.listen()
    dialer = dial.Dialer(ProxyChoice())
    with host.namespace.inside(), gevent.Timeout(PATIENCE):
        # There is no address yet.
        dialer.dial("server.example", port, secure=False, again=True).close()
        dialer.dial("server.example", port, secure=False).close()
        assert dialer.address == "127.0.0.2"
        for _ in range(3):
            stream = dialer.dial("server.example", port, secure=False, again=True)
            assert stream.tcp.getpeername() == ("127.0.0.2", port)
            assert dialer.address == "127.0.0.2"
            stream.close()
        listener.close()
        with pytest.raises(ConnectError, match="refused"):
            dialer.dial("server.example", port, secure=False, again=True)
        # The first one goes wherever the name leads.
        dialer.dial("server.example", port, secure=False).close()
    assert dialer.address == "127.0.0.1"
    assert len(looked_up) == 3
