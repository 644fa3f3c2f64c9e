"""Certificates: which servers a client takes, which clients a server takes, and what either says to those that it does
not. Every case over a real connection."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from etherws.access import certificates
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.joining import joining, last_line
from tests.lab.peer import Peer, request
from tests.lab.pki import Authority, Certificate, pin_of, public_key
from tests.lab.refusals import Tell
from tests.lab.servers import answer, serve, switching

# The client, and servers of every kind.


def tls(pair: Certificate, change: Callable[[ssl.SSLContext], None] = lambda _: None) -> ssl.SSLContext:
    """A server's context that minds nothing; the client is to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(pair.cert, pair.key)
    change(context)
    return context


def only(version: ssl.TLSVersion) -> Callable[[ssl.SSLContext], None]:
    """Has a server speak this version of TLS and no other."""

    def change(context: ssl.SSLContext) -> None:
        context.minimum_version = version
        context.maximum_version = version

    return change


def old_cipher(context: ssl.SSLContext) -> None:
    """A cipher without authentication of its own, and no TLS 1.3."""
    only(ssl.TLSVersion.TLSv1_2)(context)
    context.set_ciphers("AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0")


ANOTHER_PIN = "sha256//" + "A" * 43 + "="

#: Case: what the server's certificate is, how its TLS differs, the client's options, what the client says.
SERVERS: dict[str, tuple[dict[str, Any], Callable[[ssl.SSLContext], None], list[str], str]] = {
    "expired": ({"days": (-9, -1)}, lambda _: None, [], "does not verify: certificate has expired"),
    "not yet valid": ({"days": (1, 9)}, lambda _: None, [], "does not verify: certificate is not yet valid"),
    "wrong address": ({"names": ("192.0.2.9",)}, lambda _: None, [], "does not verify: IP address mismatch"),
    "an address as a name only": ({"names": ("127-0-0-1.example",)}, lambda _: None, [], "IP address mismatch"),
    "no SAN, the address as CN": ({"names": (), "common": "127.0.0.1"}, lambda _: None, [], "IP address mismatch"),
    "self-signed": ({"signed": False}, lambda _: None, [], "does not verify: self-signed certificate"),
    "weak key": ({"weak": True}, lambda _: None, [], "does not verify: EE certificate key too weak"),
    "for clients only": ({"usage": "client"}, lambda _: None, [], "does not verify: unsuitable certificate purpose"),
    "wrong authority": ({}, lambda _: None, ["--cacert", "{other}"], "unable to get local issuer certificate"),
    "the system's store": ({}, lambda _: None, ["--system"], "unable to get local issuer certificate"),
    "another pin": ({}, lambda _: None, ["--pinnedpubkey", ANOTHER_PIN], "its key is not the pinned one but sha256//"),
    "another pin, insecure": (
        {"signed": False},
        lambda _: None,
        ["--system", "--insecure", "--pinnedpubkey", ANOTHER_PIN],
        "its key is not the pinned one but sha256//",
    ),
    "a revoked pin": (
        {},
        lambda _: None,
        ["--pinnedpubkey", "{old key}"],
        "its key is not the pinned one but sha256//",
    ),
    "another name by --sni": ({}, lambda _: None, ["--sni", "else.example"], "Hostname mismatch"),
    "TLS 1.0": ({}, only(ssl.TLSVersion.TLSv1), [], "it has no TLS 1.2 or later"),
    "TLS 1.1": ({}, only(ssl.TLSVersion.TLSv1_1), [], "it has no TLS 1.2 or later"),
    "old ciphers": ({}, old_cipher, [], "no cipher in common"),
}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize("case", SERVERS)
def test_a_server_that_is_not_to_be_trusted_is_left(
    host: Host, authority: Authority, tmp_path: Path, tell: Tell, case: str
) -> None:
    kind, change, options, words = SERVERS[case]
    other = Authority(tmp_path, "another CA")
    key = tmp_path / "old.pem"
    key.write_bytes(public_key(authority.issue()))
    named = {"{other}": str(other.cert), "{old key}": str(key)}
    if "--cacert" not in options and "--system" not in options:
        options = ["--cacert", str(authority.cert), *options]
    arguments = [named.get(option, option) for option in options if option != "--system"]
    context = tls(authority.issue(**kind), change)
    with serve(host, answer(b""), lambda sock: context.wrap_socket(sock, server_side=True)) as port:
        client = host.etherws(
            "client", "--foreground", "--debug", f"wss://127.0.0.1:{port}/", *arguments, "--retry-interval", "10ms"
        )
        client.says(words, times=3)
        tell(f"server: {case}", "", last_line(client), "retries, ever slower")
        client.stop()


def test_a_server_that_is_to_be_trusted_is_taken(host: Host, authority: Authority, tmp_path: Path) -> None:
    def connects(connection: socket.socket, data: bytes) -> None:
        connection.sendall(switching(data))
        connection.recv(1)

    good, alone = authority.issue(), authority.issue(signed=False)
    named = authority.issue(("lab.example",))
    (tmp_path / "authorities").mkdir()
    (tmp_path / "authorities" / "ours.crt").write_bytes(authority.cert.read_bytes())
    (tmp_path / "key.pem").write_bytes(public_key(alone))
    for pair, options in (
        (good, ["--cacert", str(authority.cert)]),
        (good, ["--cacert", str(tmp_path / "authorities")]),
        (good, ["--cacert", str(authority.cert), "--pinnedpubkey", f"{ANOTHER_PIN};{pin_of(good)}"]),
        # Pinned, and of no authority: what a self-signed certificate is good for.
        (alone, ["--insecure", "--pinnedpubkey", pin_of(alone)]),
        (alone, ["--insecure", "--pinnedpubkey", str(tmp_path / "key.pem")]),
        (named, ["--cacert", str(authority.cert), "--sni", "lab.example"]),
    ):
        context = tls(pair)
        asked: list[str | None] = []
        context.sni_callback = lambda _, name, __, asked=asked: asked.append(name)
        with serve(host, connects, partial(context.wrap_socket, server_side=True)) as port:
            client = host.etherws("client", "--foreground", f"wss://localhost:{port}/", *options)
            output = client.says("connected to wss://localhost")
            # Loudly, unless a pin says who it is.
            assert "warning: --insecure" not in output
            assert asked == ["lab.example" if "--sni" in options else "localhost"]
            client.stop()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--cacert", "/nonexistent"], "cannot read --cacert /nonexistent: No such file or directory"),
        (["--cacert", "{junk}"], "it has no certificate in PEM form"),
        (["--cacert", "{empty}"], "no file named *.pem, *.crt or *.cer"),
        (["--pinnedpubkey", "sha256//short"], "is not a pin"),
        (["--pinnedpubkey", "/nonexistent"], "cannot read --pinnedpubkey"),
        (["--pinnedpubkey", "{junk}"], "no public key in PEM or DER form"),
        (["--certfile", "/nonexistent"], "cannot read --keyfile /nonexistent"),
        (["--certfile", "{junk}"], "not a key and a certificate in PEM form"),
        (["--keyfile", "{junk}"], "--keyfile needs --certfile as well"),
        (["--insecure", "--cacert", "{junk}"], "verifies nothing, so --cacert has no effect"),
    ],
)
def test_options_that_cannot_be_used_are_named(host: Host, tmp_path: Path, options: list[str], words: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk").write_text("no PEM")
    arguments = [{"{junk}": str(tmp_path / "junk"), "{empty}": str(tmp_path / "empty")}.get(o, o) for o in options]
    client = host.etherws("client", "--foreground", "wss://127.0.0.1:9/", *arguments)
    assert client.ends() == 1
    assert words in client.output
    assert client.output.count("\n") == 1


def test_a_pin_is_not_left_out_where_no_server_shows_a_key(host: Host) -> None:
    servers = ("--uri", "wss://127.0.0.1:9/", "--uri", "ws://127.0.0.1:9/")
    for command in (("client", "--foreground", *servers), ("check", "ws://127.0.0.1:9/")):
        process = host.etherws(*command, "--pinnedpubkey", ANOTHER_PIN)
        assert process.ends() == 1
        assert "--pinnedpubkey needs TLS: a server at ws:// shows no key; use wss://" in process.output
        assert process.output.count("\n") == 1


# The server, and clients of every kind.


def start(host: Host, authority: Authority, *options: str) -> Process:
    """A server with TLS on port 443."""
    pair = authority.issue()
    server = host.etherws(
        "server", "--foreground", "--debug", "--keyfile", str(pair.key), "--certfile", str(pair.cert), *options
    )
    server.says("listening")
    return server


#: Case: what the client's certificate is (None: it has none), what the server says, what the client says.
CLIENTS: dict[str, tuple[dict[str, Any] | None, str, str]] = {
    "no certificate": (None, "peer did not return a certificate", "it wants a certificate from this client"),
    "self-signed": (
        {"signed": False},
        "self-signed certificate",
        "it does not know the authority that signed --certfile",
    ),
    "another authority": ({"other": True}, "unable to get local issuer", "it does not know the authority that signed"),
    "expired": ({"days": (-9, -1)}, "certificate has expired", "--certfile has expired; renew it"),
    "not yet valid": ({"days": (1, 9)}, "certificate is not yet valid", "it does not accept --certfile"),
    "for servers only": ({"usage": "server"}, "unsuitable certificate purpose", "--certfile is of a kind that"),
    "revoked": ({"names": ("mallory",)}, "certificate revoked", "--certfile was revoked; get a new one"),
    "without a name": ({"names": (), "common": ""}, "has no name", "answered 403 Forbidden"),
}


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_a_client_without_a_good_certificate_is_refused(
    host: Host, authority: Authority, tmp_path: Path, tell: Tell, version: str
) -> None:
    other = Authority(tmp_path, "another CA")
    pairs = {
        case: None
        if kind is None
        else other.issue(("alice",))
        if kind.get("other")
        else authority.issue(**{"names": ("alice",), **kind})
        for case, (kind, _, _) in CLIENTS.items()
    }
    accepted = tmp_path / "clients.pem"
    revoked = pairs["revoked"]
    assert revoked
    accepted.write_bytes(authority.cert.read_bytes() + authority.revoke(revoked))
    server = start(host, authority, "--client-ca", str(accepted))
    config = tmp_path / "openssl.cnf"
    config.write_text(
        f"openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\nMaxProtocol = TLSv{version}\n"
    )
    for case, (_, server_says, client_says) in CLIENTS.items():
        pair = pairs[case]
        options = ["--certfile", str(pair.cert), "--keyfile", str(pair.key)] if pair else []
        client = host.etherws(
            "client", "--foreground", "wss://localhost/", "--cacert", str(authority.cert), *options,
            "--no-retry-on-auth-failure", env={"OPENSSL_CONF": str(config)},
        )  # fmt: skip
        assert client.ends() == 77, client.output
        assert client_says in client.output
        server.says(server_says)
        tell(f"client, TLS {version}: {case}", server_says, last_line(client), "ends with 77, or retries each 30 s")
    assert "joined" not in server.output
    assert "Traceback" not in server.output


def test_a_certificate_names_its_client(host: Host, authority: Authority) -> None:
    server = start(host, authority, "--client-ca", str(authority.cert), "--bridge", "br0")
    for names, common, name in (
        (("alice.example", "bob.example"), "carol", "alice.example"),
        (("dave@example.org",), "carol", "dave@example.org"),
        (("spiffe://lab/erin",), "carol", "spiffe://lab/erin"),
        ((), "carol", "carol"),
        (("192.0.2.7",), "frank", "frank"),
    ):
        pair = authority.issue(names, common=common)
        client = joining(host, authority, "--certfile", str(pair.cert), "--keyfile", str(pair.key))
        client.says("connected")
        server.says(f"as '{name}' joined on ethws")
        client.stop()


def test_plain_http_and_noise_at_a_tls_port_cost_nothing(host: Host, authority: Authority) -> None:
    server = start(host, authority)
    for noise in (request(), b"\x16\x03\x01\xff\xff" + bytes(100), b"\x80\x2e\x01\x00\x02" + bytes(41), b"\0" * 5000):
        peer = Peer(host, ("127.0.0.1", 443))
        with contextlib.suppress(ConnectionError):
            peer.say(noise)
        peer.rest()
    assert "Traceback" not in server.output
    client = joining(host, authority)
    client.says("connected")


#: What a client of old would speak: arguments of openssl s_client.
OLD = {
    "TLS 1.0": ["-tls1"],
    "TLS 1.1": ["-tls1_1"],
    "RSA key exchange": ["-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"],
    "CBC": ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"],
    "CBC, SHA-256": ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0"],
    "no encryption": ["-tls1_2", "-cipher", "eNULL:@SECLEVEL=0"],
    "no certificate": ["-tls1_2", "-cipher", "aNULL:@SECLEVEL=0"],
}


def test_old_protocols_and_ciphers_are_refused(host: Host, authority: Authority, tell: Tell) -> None:
    start(host, authority)
    for case, arguments in OLD.items():
        cipher = [] if "-cipher" in arguments else ["-cipher", "ALL:@SECLEVEL=0"]
        peer = host.run("openssl", "s_client", "-connect", "127.0.0.1:443", *arguments, *cipher)
        assert peer.ends() == 1, peer.output
        assert "alert" in peer.output, peer.output
        alert = next(line for line in peer.output.splitlines() if "alert" in line).split(":")[5]
        tell(f"client: {case}", f"TLS alert: {alert}", "(openssl s_client)", "TCP ended")
    peer = host.run("openssl", "s_client", "-connect", "127.0.0.1:443", "-alpn", "h2,http/1.1")
    peer.ends()
    assert "ALPN protocol: http/1.1" in peer.output
    assert "TLSv1.3, Cipher is TLS_" in peer.output


def test_files_are_read_again_and_a_broken_one_is_not_used(host: Host, authority: Authority, tmp_path: Path) -> None:
    files = Certificate(tmp_path / "ssl.key", tmp_path / "ssl.crt")

    def put(pair: Certificate) -> None:
        for source, target in zip(pair, files, strict=True):
            target.write_bytes(source.read_bytes())

    def shown() -> str:
        """The pin of the certificate that the server shows now."""
        context = ssl.create_default_context(cafile=str(authority.cert))
        with host.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", 443))
            with context.wrap_socket(sock, server_hostname="localhost") as wrapped:
                return certificates.pin_of(wrapped.getpeercert(True) or b"")

    first, second = authority.issue(), authority.issue()
    put(first)
    server = host.etherws("server", "--foreground", "--keyfile", str(files.key), "--certfile", str(files.cert))
    server.says("listening")
    client = joining(host, authority)
    client.says("connected")
    assert shown() == pin_of(first)
    put(second)
    assert shown() == pin_of(second)
    server.says("read again")
    # The key of one, the certificate of the other: as half-way through a renewal.
    files.key.write_bytes(first.key.read_bytes())
    assert shown() == pin_of(second)
    server.says("is not the key of")
    server.says("what was read before stays in use")
    files.key.unlink()
    server.signal(signal.SIGHUP)
    server.says("No such file or directory")
    assert shown() == pin_of(second)
    put(first)
    server.signal(signal.SIGHUP)
    until(lambda: shown() == pin_of(first), "the first certificate to be back")
    # Each was said once, and nobody was disturbed.
    assert server.output.count("is not the key of") == 1
    assert "lost" not in client.output
