"""Clients that are in already, when what let them in changes: each is told to go, or gets its new rules.

No new connection is made meanwhile: the server notices the files by itself.
"""

from __future__ import annotations

import datetime
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from etherws.access import passwd
from tests.lab.hosts import OURS, PATIENCE, Host, Process, until
from tests.lab.joining import joining
from tests.lab.peer import Peer, masked, request
from tests.lab.pki import NOW, Authority, Certificate
from tests.lab.policy_lan import Lan, closed, hears, says, source
from tests.lab.servers import gunicorn


def lose(peer: Peer, server: Process) -> None:
    """Break its TCP off without a word, so that its port is kept."""
    left = server.output.count(" left ")
    peer.reset()
    server.says(" left ", times=left + 1)


class Tokens:
    """A server that asks for tokens."""

    def __init__(self, host: Host, folder: Path, *names: str) -> None:
        self.host, self.file = host, folder / "tokens"
        self.tokens = {name: passwd.add_token(self.file, name) for name in names}
        self.server = host.etherws(
            "server", "--foreground", "--debug", "--address", "127.0.0.1", "--bridge", "br0",
            "--token-file", str(self.file),
        )  # fmt: skip
        self.server.says("listening")

    def join(self, name: str) -> Peer:
        """A client, joined."""
        peer = Peer(self.host)
        peer.say(request(Authorization=f"Bearer {self.tokens[name]}"))
        assert peer.head().startswith(b"HTTP/1.1 101 ")
        return peer


def still_there(peer: Peer) -> None:
    """The session answers a ping."""
    peer.say(masked(0x89, b"there?"))
    while (got := peer.frame())[0] != 0x8A:
        assert got[0] != 0x88, got
    assert got[1] == b"there?"


def test_a_removed_token_ends_its_session_and_no_other(host: Host, tmp_path: Path) -> None:
    lan = Tokens(host, tmp_path, "robot", "other")
    robot, other = lan.join("robot"), lan.join("other")
    passwd.remove(lan.file, "robot")
    assert closed(robot)[0] == 1008
    lan.server.says("its token was removed")
    still_there(other)
    # Nothing that is broken, or gone, ends anybody.
    entry = lan.file.read_text()
    lan.file.write_text("other\n")
    lan.server.says("what was read before stays in use")
    lan.file.unlink()
    lan.server.says("what was read before stays in use", times=2)
    still_there(other)
    lan.file.write_text("# comments do not matter\n" + entry)
    lan.server.signal(signal.SIGHUP)
    lan.server.says("read again", times=2)
    still_there(other)
    assert lan.tokens["robot"] not in lan.server.output


def test_a_token_that_another_name_gets_comes_in_again_by_that_name(host: Host, tmp_path: Path) -> None:
    lan = Tokens(host, tmp_path, "robot")
    robot = lan.join("robot")
    lan.file.write_text(lan.file.read_text().replace("robot:", "android:"))
    assert closed(robot)[0] == 1012
    lan.join("robot")
    lan.server.says("as 'android' joined")


def test_the_port_that_is_kept_for_a_removed_client_is_freed(host: Host, tmp_path: Path) -> None:
    lan = Tokens(host, tmp_path, "first", "robot")
    lan.join("first")
    robot = lan.join("robot")
    lose(robot, lan.server)
    assert "ethws1" in host.links()
    passwd.remove(lan.file, "robot")
    # It would be kept for 30 s.
    until(lambda: "ethws1" not in host.links(), "its port to go", 15.0)


@pytest.mark.parametrize("change", ["password", "removed", "signal"])
def test_who_has_another_password_or_none_any_more_has_to_go(host: Host, tmp_path: Path, change: str) -> None:
    lan = Lan(host, tmp_path, "")
    alice, bob = lan.join("alice"), lan.join("bob")
    file = tmp_path / "passwords"
    if change == "password":
        passwd.set_password(file, "alice", "another", cost=4)
    else:
        passwd.remove(file, "alice")
    if change == "signal":
        lan.server.signal(signal.SIGHUP)
    assert closed(alice)[0] == 1008
    lan.server.says("its password was changed" if change == "password" else "its user was removed")
    still_there(bob)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "[client.alice]\nconnect = false\n"),
        ("[default]\nconnect = false\n[client.alice]\nconnect = true\n[client.bob]\nconnect = true\n",
         "[default]\nconnect = false\n[client.bob]\nconnect = true\n"),
        ("[client.bob]\nconnect = true\n", "[default]\nconnect = false\n[client.bob]\nconnect = true\n"),
    ],
    ids=["refused", "entry removed", "default changed"],
)  # fmt: skip
def test_who_may_not_connect_any_more_has_to_go(host: Host, tmp_path: Path, before: str, after: str) -> None:
    lan = Lan(host, tmp_path, before)
    alice, bob = lan.join("alice"), lan.join("bob")
    lan.policy.write_text(after)
    assert closed(alice)[0] == 1008
    lan.server.says("the policy does not let it connect any more")
    still_there(bob)


def test_an_open_server_goes_by_its_default(host: Host, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("# nothing\n")
    server = host.etherws("server", "--foreground", "--address", "127.0.0.1", "--policy", str(policy))
    server.says("listening")
    peer = Peer(host).upgraded()
    policy.write_text("[default]\nconnect = false\n")
    assert closed(peer)[0] == 1008


def test_other_rules_apply_to_a_session_that_runs(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, "")
    alice, bob = lan.join("alice"), lan.join("bob")
    says(alice, source(1))
    hears(bob, source(1))
    allowed = (OURS + (2).to_bytes(3, "big")).hex(":")
    lan.policy.write_text(f'[client.alice]\nmacs = ["{allowed}"]\n')
    lan.server.says("1 have other rules")
    says(alice, source(1))
    says(alice, source(2))
    hears(bob, source(2))
    # The first address, which the bridge still remembers, goes on counting.
    lan.policy.write_text("[client.alice]\nmacs = 2\n")
    lan.server.says("1 have other rules", times=2)
    says(alice, source(5))
    says(alice, source(6))
    says(alice, source(5))
    hears(bob, source(5))
    hears(bob, source(5))
    lan.policy.write_text("[default]\nisolated = true\n")
    lan.server.says("2 have other rules")
    says(alice, source(7))
    lan.policy.write_text("# nothing\n")
    lan.server.says("2 have other rules", times=2)
    says(alice, source(8))
    hears(bob, source(8))
    still_there(alice)
    assert "Traceback" not in lan.server.output


def test_rates_apply_to_a_session_that_runs(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, "")
    alice = lan.join("alice")
    says(alice, source(1))

    def queue() -> str:
        with host.netlink() as route:
            index = route.link_lookup(ifname="ethws0")[0]
            return " ".join(str(each.get("kind")) for each in route.tc("dump", index=index))

    before = queue()
    lan.policy.write_text('[client.alice]\nrate-down = "1 Mbit/s"\nrate-up = "1 Mbit/s"\n')
    until(lambda: queue() != before, "the limit")
    lan.server.says("1 have other rules")
    lan.policy.write_text("# nothing\n")
    until(lambda: queue() == before, "the end of the limit")
    still_there(alice)


def test_a_port_that_is_kept_gets_the_new_rules_and_stays(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, "")
    carol, alice = lan.join("carol"), lan.join("alice")
    says(alice, source(1))
    hears(carol, source(1))
    index = host.links()["ethws1"]["index"]
    lose(alice, lan.server)
    lan.policy.write_text("[client.alice]\nmacs = 1\n")
    lan.server.says("1 have other rules")
    alice = lan.join("alice")
    assert host.links()["ethws1"]["index"] == index
    for number in (1, 2, 1):
        says(alice, source(number))
    hears(carol, source(1))
    hears(carol, source(1))


@pytest.mark.parametrize("change", ['bridge = "br-lab"', 'device = "alice%d"', "mtu = 1400"])
def test_a_client_with_another_bridge_device_or_mtu_comes_back_to_it(host: Host, tmp_path: Path, change: str) -> None:
    lan = Lan(host, tmp_path, "")
    client = host.etherws(
        "client", "--foreground", "ws://127.0.0.1/", "--device", "far0", "--retry-interval", "50ms",
        env={"ETHERWS_CLIENT_USER": "alice:alice"},
    )  # fmt: skip
    client.says("connected to")
    lan.server.says("'alice' joined on ethws0")
    lan.policy.write_text(f"[client.alice]\n{change}\n")
    # Soon, not after the wait of a client that is refused.
    client.says("code 1012")
    client.says("connected to", times=2)
    lan.server.says("'alice' joined", times=2)
    links = host.links()
    name = "alice0" if "device" in change else "ethws1"
    assert links[name].get("master") == links["br-lab" if "bridge" in change else "br0"]["index"]
    assert links[name].get("mtu") == (1400 if "mtu" in change else 1500)


def test_fewer_connections_end_the_oldest(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, "[client.alice]\nconnections = 3\n")
    first, second, third = (lan.join("alice") for _ in range(3))
    lan.policy.write_text("[client.alice]\nconnections = 1\n")
    assert closed(first)[0] == closed(second)[0] == 1008
    still_there(third)


def test_gunicorns_workers_look_at_the_files_too(host: Host, tmp_path: Path) -> None:
    token = passwd.add_token(tmp_path / "tokens", "robot")
    server = gunicorn(host, "-b", "127.0.0.1:80", ETHERWS_SERVER_TOKEN_FILE=str(tmp_path / "tokens"))
    server.says("Booting worker")
    until(lambda: "ethws0" in host.links(), "the first interface")
    peer = Peer(host)
    peer.say(request(Authorization=f"Bearer {token}"))
    assert peer.head().startswith(b"HTTP/1.1 101 ")
    passwd.remove(tmp_path / "tokens", "robot")
    assert closed(peer)[0] == 1008


# Certificates.


class Gate:
    """A server that asks for certificates."""

    def __init__(self, host: Host, authority: Authority, folder: Path) -> None:
        self.host, self.authority, self.file = host, authority, folder / "clients.pem"
        self.put(authority.cert.read_bytes())
        pair = authority.issue()
        self.server = host.etherws(
            "server", "--foreground", "--debug", "--keyfile", str(pair.key), "--certfile", str(pair.cert),
            "--client-ca", str(self.file), "--bridge", "br0",
        )  # fmt: skip
        self.server.says("listening")

    def put(self, content: bytes) -> None:
        """Replace the file of authorities."""
        new = self.file.with_suffix(".new")
        new.write_bytes(content)
        os.replace(new, self.file)

    def join(self, pair: Certificate) -> Process:
        """A client, connected."""
        client = joining(self.host, self.authority, "--certfile", str(pair.cert), "--keyfile", str(pair.key))
        client.says("connected")
        return client

    def context(self, pair: Certificate, version: ssl.TLSVersion) -> ssl.SSLContext:
        """A client's context, for this version of TLS only."""
        context = ssl.create_default_context(cafile=str(self.authority.cert))
        context.load_cert_chain(pair.cert, pair.key)
        context.minimum_version = context.maximum_version = version
        return context

    def asks(self, context: ssl.SSLContext, session: Any = None) -> tuple[bytes, Any, bool]:
        """The status line that it is answered, its session of TLS, and whether that was resumed."""
        with self.host.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(("127.0.0.1", 443))
            with context.wrap_socket(sock, server_hostname="localhost", session=session) as tls:
                tls.sendall(request())
                head = b""
                while b"\r\n\r\n" not in head and (data := tls.recv(65536)):
                    head += data
                found, resumed = tls.session, bool(tls.session_reused)
                tls.sendall(masked(0x88, b"\x03\xe8"))
                # To its end in order, which is when TLS keeps a session.
                while tls.recv(65536):
                    pass
                return head.split(b"\r\n")[0], found, resumed


@pytest.mark.parametrize("change", ["revoked", "authority", "connect"])
def test_a_certificate_that_does_not_hold_any_more_ends_its_session(
    host: Host, authority: Authority, tmp_path: Path, change: str
) -> None:
    other = Authority(tmp_path, "another CA")
    gate = Gate(host, authority, tmp_path)
    both = authority.cert.read_bytes() + other.cert.read_bytes()
    gate.put(both)
    alice, bob = authority.issue(("alice",)), other.issue(("bob",))
    first, second = gate.join(alice), gate.join(bob)
    if change == "revoked":
        gate.put(both + authority.revoke() + other.revoke(bob))
    else:
        gate.put(authority.cert.read_bytes())
    if change == "connect":
        gate.server.signal(signal.SIGHUP)
    second.says("closed by the peer, code 1008")
    gate.server.says("its certificate does not hold")
    assert "lost" not in first.output
    # A broken file changes nothing.
    gate.put(b"no PEM")
    gate.server.says("what was read before stays in use")
    assert "lost" not in first.output


def test_a_certificate_that_expires_ends_its_session(host: Host, authority: Authority, tmp_path: Path) -> None:
    gate = Gate(host, authority, tmp_path)
    now = datetime.datetime.now(datetime.timezone.utc)
    client = gate.join(authority.issue(("alice",), days=(-1, (now - NOW).total_seconds() / 86400 + 12 / 86400)))
    client.says("closed by the peer, code 1008")
    gate.server.says("its certificate does not hold: certificate has expired")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_an_expired_certificate_does_not_come_in_by_an_old_session_of_tls(
    host: Host, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    gate = Gate(host, authority, tmp_path)
    now = datetime.datetime.now(datetime.timezone.utc)
    end = (now - NOW).total_seconds() + 7
    context = gate.context(authority.issue(("alice",), days=(-1, end / 86400)), version)
    status, session, _ = gate.asks(context)
    assert b" 101 " in status
    until(lambda: datetime.datetime.now(datetime.timezone.utc) > NOW + datetime.timedelta(seconds=end + 1), "its end")
    try:
        status, _, resumed = gate.asks(context, session)
    except (ssl.SSLError, ConnectionError) as exc:
        # A full handshake, which verifies.
        assert "expired" in str(exc) or isinstance(exc, ConnectionError)
    else:
        # By the session's number, in TLS 1.2.
        assert b" 403 " in status
        assert resumed
    gate.server.says("certificate has expired")
    assert gate.server.output.count("joined") == 1


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_revoked_certificate_does_not_come_in_by_an_old_session_of_tls(
    host: Host, authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    gate = Gate(host, authority, tmp_path)
    pair = authority.issue(("alice",))
    context = gate.context(pair, version)
    status, session, _ = gate.asks(context)
    assert b" 101 " in status
    gate.put(authority.cert.read_bytes() + authority.revoke(pair))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        gate.asks(context, session)
    gate.server.says("certificate revoked")
    assert gate.server.output.count("joined") == 1
