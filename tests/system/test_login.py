"""Passwords, tokens and origins: what a server refuses, in which words, and what its clients make of that."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from etherws.access import passwd
from etherws.server.login_queue import FAILURE_INTERVAL, FREE_FAILURES, MAX_WAITING_LOGINS
from tests.lab.hosts import Host, Process, until
from tests.lab.joining import joining, last_line
from tests.lab.peer import Peer, asked, basic, masked, request
from tests.lab.pki import Authority
from tests.lab.refusals import Tell

#: How a process starts is not what is tested here.
pytestmark = pytest.mark.usefixtures("forks_etherws")

PASSWORD = "correct horse"
#: No secret may be seen anywhere; each is unlike anything else that is printed.
WRONG = "xyzzy-wrong-password"


class Files:
    """A password file with alice and bob, a token file with robot."""

    def __init__(self, folder: Path) -> None:
        self.passwords, self.tokens = folder / "passwords", folder / "tokens"
        passwd.set_password(self.passwords, "alice", PASSWORD, cost=4)
        passwd.set_password(self.passwords, "b\u00f6b", "gr\u00fcn", cost=4)
        self.token = passwd.add_token(self.tokens, "robot")
        self.revoked = passwd.add_token(self.tokens, "former")
        passwd.remove(self.tokens, "former")
        self.options = ["--htpasswd", str(self.passwords), "--token-file", str(self.tokens)]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """Files for a server."""
    return Files(tmp_path)


def start(host: Host, *options: str) -> Process:
    """A server on port 80 of the loopback."""
    server = host.etherws("server", "--foreground", "--debug", "--address", "127.0.0.1", *options)
    server.says("listening")
    return server


def body(answer: bytes) -> str:
    """What a refusal says."""
    return answer.partition(b"\r\n\r\n")[2].decode().strip()


#: Case: the Authorization header. Every one is answered alike.
REFUSED: dict[str, str | None] = {
    "none": None,
    "wrong password": basic(f"alice:{WRONG}"),
    "unknown user": basic(f"mallory:{PASSWORD}"),
    "another's password": basic("alice:gr\u00fcn"),
    "user in another case": basic(f"Alice:{PASSWORD}"),
    "empty": "",
    "empty password": basic("alice:"),
    "empty user": basic(f":{PASSWORD}"),
    "both empty": basic(":"),
    "no colon": basic("alice"),
    "password of 10 kB": basic("alice:" + "x" * 10_000),
    "password of 73 bytes": basic("alice:" + PASSWORD + "x" * 60),
    "NUL in the password": basic(f"alice:{PASSWORD}\0"),
    "NUL in the user": basic(f"alice\0:{PASSWORD}"),
    "line feed behind the password": basic(f"alice:{PASSWORD}\n"),
    "in Latin-1": basic("b\u00f6b:gr\u00fcn".encode("latin-1")),
    "no base64": "Basic alice:password",
    "base64 with blanks": basic(f"alice:{PASSWORD}").replace("Basic ", "Basic a "),
    "base64 cut": basic(f"alice:{PASSWORD}")[:-2],
    "scheme alone": "Basic",
    "scheme that is none": "alice:password",
    "scheme Digest": 'Digest username="alice", realm="etherws", response="0"',
    "scheme Negotiate": "Negotiate TlRMTVNTUAABAAAA",
    "two headers": basic(f"alice:{PASSWORD}") + "\r\nAuthorization: " + basic(f"alice:{PASSWORD}"),
    "wrong token": "Bearer " + "A" * 43,
    "revoked token, replayed": "Bearer {revoked}",
    "token cut short": "Bearer {token:.42}",
    "token with more behind": "Bearer {token}A",
    "token of 10 kB": "Bearer " + "A" * 10_000,
    "empty token": "Bearer",
    "token as a password": basic("robot:{token}"),
    "hash of a token": "Bearer {hash}",
}


@pytest.fixture(scope="module")
def shared_files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Files for the server that all refused logins share."""
    return Files(tmp_path_factory.mktemp("login"))


@pytest.fixture(scope="module")
def shared_server(shared_host: Host, shared_files: Files) -> Process:
    """The server."""
    return start(shared_host, *shared_files.options)


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_credentials_are_refused_before_the_101(
    shared_host: Host, shared_server: Process, shared_files: Files, tell: Tell, case: str
) -> None:
    host, server, files = shared_host, shared_server, shared_files
    # One who fails too often has to wait: each case has an address of its own.
    source = f"127.0.1.{list(REFUSED).index(case) + 1}"
    header, begins = REFUSED[case], len(server.output)
    if header is not None:
        stored = files.tokens.read_text().rpartition(":")[2].strip()
        encoded = header.replace("{token}", files.token).replace("{revoked}", files.revoked)
        header = encoded.replace("{hash}", stored).replace("{token:.42}", files.token[:42])
    if case == "token as a password":
        header = basic(f"robot:{files.token}")
    status, answer = asked(host, source, Authorization=header)
    assert status == b"HTTP/1.1 401 Unauthorized"
    assert b'\r\nWWW-Authenticate: Basic realm="etherws", charset="UTF-8"\r\n' in answer
    assert b'\r\nWWW-Authenticate: Bearer realm="etherws"\r\n' in answer
    tell(f"login: {case}", body(answer), "(a bare socket)", "401, connection closed")
    # And the next one is served.
    assert asked(host, source, Authorization=basic(f"alice:{PASSWORD}"))[0].startswith(b"HTTP/1.1 101 ")
    until(lambda: " left ethws0" in server.output[begins:], "the end of the session")
    output = server.output[begins:]
    assert "as 'alice' joined" in output
    assert "Traceback" not in output
    for secret in (WRONG, PASSWORD, files.token, files.revoked, header or "-none-"):
        assert secret not in output


def test_right_credentials_are_taken(host: Host, files: Files) -> None:
    server = start(host, *files.options, "--bridge", "br0")
    for header, name in (
        (basic(f"alice:{PASSWORD}"), "alice"),
        (basic(f"alice:{PASSWORD}").replace("Basic ", "basic   "), "alice"),
        (basic("b\u00f6b:gr\u00fcn"), "b\u00f6b"),
        (f"Bearer {files.token}", "robot"),
        (f"bearer {files.token}", "robot"),
    ):
        assert asked(host, Authorization=header)[0].startswith(b"HTTP/1.1 101 ")
        server.says(f"as '{name}' joined")


def test_only_what_the_server_has_a_file_for_is_asked_for_and_taken(host: Host, files: Files) -> None:
    start(host, "--token-file", str(files.tokens))
    status, answer = asked(host, Authorization=basic(f"alice:{PASSWORD}"))
    assert status == b"HTTP/1.1 401 Unauthorized"
    assert b"WWW-Authenticate: Bearer" in answer
    assert b"Basic realm" not in answer


def test_a_browser_brings_its_token_as_a_subprotocol(host: Host, files: Files) -> None:
    server = start(host, *files.options)
    name = f"authorization.bearer.{files.token}"
    # One that it offered must come back, and rather not the secret.
    for offer, chosen in ((f"etherws.v1, {name}", b"etherws.v1"), (name, name.encode())):
        status, answer = asked(host, Sec_WebSocket_Protocol=offer)
        assert status.startswith(b"HTTP/1.1 101 ")
        assert b"\r\nSec-WebSocket-Protocol: " + chosen + b"\r\n" in answer
    assert asked(host, Sec_WebSocket_Protocol="authorization.bearer.wrong")[0].startswith(b"HTTP/1.1 401 ")
    server.says("as 'robot' joined")
    assert files.token not in server.output


def test_five_failures_are_free_and_then_an_address_is_slowed_down(host: Host, files: Files, tell: Tell) -> None:
    server = start(host, *files.options)
    wrong = basic(f"alice:{WRONG}")
    statuses = [asked(host, Authorization=wrong)[0] for _ in range(FREE_FAILURES + 2)]
    assert statuses[:FREE_FAILURES] == [b"HTTP/1.1 401 Unauthorized"] * FREE_FAILURES
    assert statuses[-1] == b"HTTP/1.1 429 Too Many Requests"
    # The right one has to wait as well: that it is right cannot be known without looking.
    status, answer = asked(host, Authorization=basic(f"alice:{PASSWORD}"))
    assert status == b"HTTP/1.1 429 Too Many Requests"
    assert re.search(rb"\r\nRetry-After: [1-5]\r\n", answer)
    tell("login: the sixth failure from an address", body(answer), "", "429")
    # Not so who asks without credentials: nothing was tried.
    assert asked(host)[0] == b"HTTP/1.1 401 Unauthorized"
    until(lambda: b" 101 " in asked(host, Authorization=basic(f"alice:{PASSWORD}"))[0], "the address to be let in")
    assert server.output.count("login refused") >= FREE_FAILURES


def test_many_logins_at_once_are_bounded_and_block_nobody(host: Host, files: Files) -> None:
    passwd.set_password(files.passwords, "slow", PASSWORD, cost=8)
    server = start(host, *files.options, "--bridge", "br0")
    inside = Peer(host)
    inside.say(request(Authorization=f"Bearer {files.token}"))
    assert inside.head().startswith(b"HTTP/1.1 101 ")
    others, begun = [Peer(host) for _ in range(MAX_WAITING_LOGINS + 8)], monotonic()
    for other in others:
        other.say(request(Authorization=basic("slow:" + WRONG)))
    # Meanwhile pings are answered; that is no promise of how soon.
    inside.say(masked(0x89, b"are you there?"))
    while (got := inside.frame())[0] != 0x8A:
        pass
    assert got == (0x8A, b"are you there?")
    heads = [other.head().split(b" ")[1] for other in others]
    # And one more each FAILURE_INTERVAL, where the machine is busy.
    assert FREE_FAILURES <= heads.count(b"401") <= FREE_FAILURES + (monotonic() - begun) / FAILURE_INTERVAL
    assert heads.count(b"503") >= 1
    assert set(heads) == {b"401", b"429", b"503"}
    assert "Traceback" not in server.output


def test_files_are_read_again_without_dropping_another_session(host: Host, files: Files, tell: Tell) -> None:
    server = start(host, *files.options, "--bridge", "br0")
    inside = Peer(host)
    inside.say(request(Authorization=f"Bearer {files.token}"))
    assert inside.head().startswith(b"HTTP/1.1 101 ")
    passwd.set_password(files.passwords, "alice", "another", cost=4)
    assert asked(host, Authorization=basic(f"alice:{PASSWORD}"))[0] == b"HTTP/1.1 401 Unauthorized"
    tell("login: the password of yesterday", "wrong user, password or token", "", "401")
    server.says("read again")
    passwd.remove(files.passwords, "alice")
    assert asked(host, Authorization=basic("alice:another"))[0] == b"HTTP/1.1 401 Unauthorized"
    tell("login: a user who was removed", "wrong user, password or token", "", "401")
    files.passwords.write_text("alice:plain\n")
    assert asked(host, Authorization=basic("alice:plain"))[0] == b"HTTP/1.1 401 Unauthorized"
    server.says("what was read before stays in use")
    assert asked(host, Authorization=basic("b\u00f6b:gr\u00fcn"))[0].startswith(b"HTTP/1.1 101 ")
    inside.say(masked(0x89, b"still?"))
    while inside.frame() != (0x8A, b"still?"):
        pass
    files.passwords.unlink()
    server.signal(signal.SIGHUP)
    server.says("No such file or directory")
    assert asked(host, Authorization=basic("b\u00f6b:gr\u00fcn"))[0].startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("--htpasswd", None, "No such file or directory"),
        ("--htpasswd", "alice:$apr1$x$y\n", ":1: "),
        ("--htpasswd", "alice\n", ":1: "),
        ("--token-file", "robot:sha256:short\n", ":1: "),
        ("--policy", "[default]\nmac = 1\n", ":2: "),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_at_the_start(
    host: Host, tmp_path: Path, option: str, text: str | None, words: str
) -> None:
    file = tmp_path / "file"
    if text is not None:
        file.write_text(text)
    server = host.etherws("server", "--foreground", option, str(file))
    assert server.ends() == 1
    assert f"{file}{words}" in server.output or words in server.output
    assert server.output.count("\n") == 1


# The client.


def client(host: Host, *options: str, uri: str = "ws://127.0.0.1/", **env: str) -> Process:
    """A client of the server on the loopback."""
    return host.etherws("client", "--foreground", "--debug", uri, "--device", "far%d", *options, env=env)


def test_credentials_come_from_wherever_they_are_kept(host: Host, files: Files, tmp_path: Path) -> None:
    start(host, *files.options)
    (tmp_path / "password").write_text(PASSWORD + "\nmore\n")
    (tmp_path / "token").write_text(files.token)
    for options, uri, env in (
        (["--user", "alice", "--password-file", str(tmp_path / "password")], "ws://127.0.0.1/", {}),
        (["-u", "alice"], "ws://127.0.0.1/", {"ETHERWS_CLIENT_PASSWORD": PASSWORD}),
        ([], "ws://127.0.0.1/", {"ETHERWS_CLIENT_USER": f"alice:{PASSWORD}"}),
        ([], "ws://alice:correct%20horse@127.0.0.1/", {}),
        ([], "ws://alice@127.0.0.1/", {"ETHERWS_CLIENT_PASSWORD": PASSWORD}),
        (["--user", f"alice:{PASSWORD}"], "ws://mallory:wrong@127.0.0.1/", {}),
        (["--token-file", str(tmp_path / "token")], "ws://127.0.0.1/", {}),
        ([], "ws://127.0.0.1/", {"ETHERWS_CLIENT_TOKEN": files.token}),
    ):
        running = client(host, *options, uri=uri, **env)
        running.says("connected to ws://127.0.0.1:80")
        # In the clear, which is said once.
        assert running.output.count("warning: without TLS anyone on the path can read the password") == 1
        argv = Path(f"/proc/{running.pid}/cmdline").read_bytes()
        for secret in (PASSWORD, "correct%20horse", files.token):
            assert secret.encode() not in argv
            assert secret not in running.output
        running.stop()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--user", "alice"], "no password for the user 'alice'; give --password-file, or ETHERWS_CLIENT_PASSWORD"),
        (["--user", ":x"], "a user name must not be empty"),
        (["--user", "alice", "--password-file", "/nonexistent"], "cannot read --password-file /nonexistent"),
        (["--password-file", "/dev/null"], "a password needs a user: give --user NAME"),
        (["--user", "alice", "--password-file", "/dev/null"], "it is not a regular file"),
        (["--token-file", "/dev/zero"], "it is not a regular file"),
        (["--user", "alice:x", "--token-file", "/dev/null"], "two ways to log in"),
    ],
)
def test_credentials_that_make_no_sense_are_refused(host: Host, options: list[str], words: str) -> None:
    running = client(host, *options)
    assert running.ends() == 1
    assert words in running.output


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "answered 401 Unauthorized; it asks for a user and password (--user) or a token (--token-file)"),
        (["--user", f"alice:{WRONG}"], "answered 401 Unauthorized; it does not accept this user and password"),
    ],
)
def test_a_refused_client_says_so_and_tries_slowly_or_not_again(
    host: Host, files: Files, tell: Tell, options: list[str], says: str
) -> None:
    server = start(host, *files.options)
    running = client(host, *options, "--retry-interval", "10ms")
    running.says(says)
    once = client(host, *options, "--no-retry-on-auth-failure")
    assert once.ends() == 77
    assert says in once.output
    # It started a process ago, at 10 ms; and has not tried again: the next is due in 30 s.
    assert server.output.count("was refused: 401") == 2
    tell(
        "client: wrong password" if options else "client: no credentials",
        "401",
        last_line(once),
        "tries each 30 s, or ends with 77",
    )
    assert WRONG not in running.output + once.output + server.output
    # In the background as well, for scripts.
    behind = host.etherws("client", "ws://127.0.0.1/", "--device", "far%d", *options, "--no-retry-on-auth-failure")
    assert behind.ends() == 77
    assert says in behind.output


def test_a_client_that_was_refused_gets_in_once_its_file_is_right(host: Host, files: Files, tmp_path: Path) -> None:
    start(host, *files.options)
    secret = tmp_path / "password"
    secret.write_text(WRONG)
    running = client(
        host, "-u", "alice", "--password-file", str(secret), "--retry-interval", "10ms", "--max-retry-interval", "20ms"
    )
    running.says("does not accept this user and password")
    secret.write_text(PASSWORD)
    running.says("connected to")


def test_the_password_is_asked_for_on_a_terminal(host: Host, files: Files) -> None:
    start(host, *files.options)
    ours, theirs = pty.openpty()
    argv = [sys.executable, "-m", "etherws", "client", "--foreground", "ws://127.0.0.1/", "-u", "alice"]
    with host.namespace.inside():
        process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    with process:
        os.close(theirs)
        seen = b""
        try:
            while b"Password of alice: " not in seen:
                seen += os.read(ours, 4096)
            os.write(ours, PASSWORD.encode() + b"\n")
            while b"connected to" not in seen:
                seen += os.read(ours, 4096)
        finally:
            process.terminate()
            process.wait(8)
            os.close(ours)
    assert PASSWORD.encode() not in seen


def test_traffic_of_a_session_by_tls_and_password(hosts: tuple[Host, Host], files: Files, authority: Authority) -> None:
    one, _ = hosts
    pair = authority.issue()
    server = one.etherws(
        "server", "--foreground", *files.options, "--certfile", str(pair.cert), "--keyfile", str(pair.key),
        "--client-ca", str(authority.cert),
    )  # fmt: skip
    server.says("listening")
    # Nothing stands open, so nothing is warned of.
    assert "WARNING" not in server.output
    card = authority.issue(("laptop",))
    options = ["--certfile", str(card.cert), "--keyfile", str(card.key)]
    # Certificate and password: each that the server was given a file for is demanded.
    refused = joining(one, authority, *options, "--no-retry-on-auth-failure")
    assert refused.ends() == 77
    joined = joining(one, authority, *options, "--user", f"alice:{PASSWORD}")
    joined.says("connected")
    server.says("as 'alice' joined")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "anyone who reaches this server may join the LAN, and anyone on the path can read and change"),
        (["{tls}"], "anyone who reaches this server may join the LAN: give --htpasswd"),
        (["{files}"], "anyone on the path can read the passwords, tokens and traffic"),
        (["{files}", "{tls}"], ""),
        (["--address", "127.0.0.1"], ""),
        (["--address", "::1"], ""),
    ],
    ids=str,
)
def test_what_stands_open_is_said_once(
    host: Host, files: Files, authority: Authority, options: list[str], words: str
) -> None:
    pair = authority.issue()
    given = {"{tls}": ["--certfile", str(pair.cert), "--keyfile", str(pair.key)], "{files}": files.options}
    server = host.etherws(
        "server", "--foreground", *[each for option in options for each in given.get(option, [option])]
    )
    server.says("listening")
    assert server.output.count("WARNING") == bool(words)
    assert words in server.output


# Web pages.

ORIGINS = {
    "another host": ("https://evil.example", 403),
    "another port": ("http://etherws.example:8080", 403),
    "a host below": ("http://www.etherws.example", 403),
    "a host that ends alike": ("http://evil-etherws.example", 403),
    "a host that begins alike": ("http://etherws.example.evil.example", 403),
    "a user that looks like a host": ("http://etherws.example@evil.example", 403),
    "a sandbox, a file": ("null", 403),
    "no host": ("http://", 403),
    "no URL": ("http://[::1", 403),
    "a bad port": ("http://etherws.example:port", 403),
    "its own": ("http://etherws.example", 101),
    "its own, by TLS": ("https://etherws.example", 101),
    "its own, in capitals": ("HTTP://Etherws.Example", 101),
    "of etherws 0.2": ("192.0.2.1:80", 101),
}


#: Lines of a kind that a server logs at once (etherws/log_limit.py).
LINES = 5


def batches(cases: dict[str, tuple[str, int]], lines: int) -> list[list[str]]:
    """The cases, as many for each server as it logs refusals, with so many lines for each."""
    found, left = [list[str]()], LINES
    for case, (_, status) in cases.items():
        if status == 403:
            if left < lines:
                found.append([])
                left = LINES
            left -= lines
        found[-1].append(case)
    return found


@pytest.mark.parametrize("cases", batches(ORIGINS, 1), ids=" | ".join)
def test_a_page_of_another_site_is_refused(host: Host, files: Files, tell: Tell, cases: list[str]) -> None:
    server, refused = start(host, *files.options), 0
    for case in cases:
        origin, status = ORIGINS[case]
        line, answer = asked(host, Origin=origin, Authorization=f"Bearer {files.token}")
        assert int(line.split()[1]) == status, case
        if status == 403:
            refused += 1
            server.says("--allow-origin would allow it", refused)
            tell(f"origin: {case}", body(answer), "(a bare socket)", "403")


#: Case: the Host that a page has in its own Origin, and the answer of a server that asks for nothing.
HOSTS = {
    "the attacker's name": ("evil.example", 403),
    "the attacker's name and a port": ("evil.example:80", 403),
    "a name that begins as an address": ("127.0.0.1.evil.example", 403),
    "a name below localhost": ("localhost.evil.example", 403),
    "an address as a number": ("2130706433", 403),
    "an address": ("127.0.0.1", 101),
    "an address and a port": ("192.0.2.1:8080", 101),
    "an IPv6 address": ("[::1]:80", 101),
    "localhost": ("localhost", 101),
    "localhost with a dot": ("LocalHost.:80", 101),
    "this machine": ("{name}", 101),
    "this machine and a port": ("{name}:8080", 101),
    "of --allow-origin, at another port": ("lab.example:8080", 101),
}


@pytest.mark.parametrize("cases", batches(HOSTS, 2), ids=" | ".join)
def test_an_open_server_takes_pages_only_by_its_own_names(host: Host, tell: Tell, cases: list[str]) -> None:
    server, refused = start(host, "--allow-origin", "https://lab.example"), 0
    for case in cases:
        name, status = HOSTS[case]
        name = name.replace("{name}", socket.gethostname())
        for scheme in ("http", "https"):
            line, answer = asked(host, Host=name, Origin=f"{scheme}://{name}")
            assert int(line.split()[1]) == status, case
        # Programs that are no browsers call it as they like.
        assert b" 101 " in asked(host, Host=name)[0]
        assert b" 101 " in asked(host, Host=name, Origin=name)[0]
        # A page that was named may connect by any name, as with etherws 0.2.
        assert b" 101 " in asked(host, Host=name, Origin="https://lab.example")[0]
        if status == 403:
            refused += 2
            server.says("that is no name of this machine", refused)
            server.says(f"--allow-origin https://{name}")
            tell(f"host: {case}", body(answer), "(a bare socket)", "403")


def test_a_server_that_asks_for_something_may_have_any_name(host: Host, files: Files) -> None:
    start(host, "--token-file", str(files.tokens))
    page = {"Host": "lan.example", "Origin": "http://lan.example"}
    assert b" 101 " in asked(host, **page, Authorization=f"Bearer {files.token}")[0]
    assert b" 401 " in asked(host, **page)[0]


def test_behind_a_trusted_proxy_with_tls_any_name_will_do(host: Host) -> None:
    start(host, "--trusted-proxy", "127.0.0.1")
    page = {"Host": "lan.example", "Origin": "https://lan.example", "X_Forwarded_For": "192.0.2.7"}
    assert b" 101 " in asked(host, **page, X_Forwarded_Proto="https")[0]
    assert b" 403 " in asked(host, **page, X_Forwarded_Proto="http")[0]
    assert b" 403 " in asked(host, **page)[0]


def test_a_flood_of_pages_and_of_wrong_passwords_is_a_few_lines_in_the_log(host: Host, files: Files) -> None:
    server = start(host, *files.options)
    for _ in range(40):
        assert b" 403 " in asked(host, Origin="https://evil.example")[0]
        assert asked(host, Authorization=f"Bearer {WRONG}")[0].split()[1] in (b"401", b"429")
    for text in ("--allow-origin would allow it", "login refused: wrong", "login refused for"):
        assert 1 <= server.output.count(text) <= 10


def test_a_proxy_that_is_not_trusted_is_named_in_the_log(host: Host, files: Files) -> None:
    server = start(host, *files.options)
    for number in range(FREE_FAILURES + 2):
        last = asked(host, Authorization=f"Bearer {WRONG}", X_Forwarded_For=f"203.0.113.{number}")[0]
    assert b" 429 " in last
    server.says("127.0.0.1 names other clients in X-Forwarded-For or Forwarded, as a reverse proxy does")
    assert server.output.count("name it by --trusted-proxy") == 1
    server.says(
        "too many wrong passwords or tokens; it seems to be a reverse proxy: start the server with --trusted-pr"
    )
    # A token that is right is taken all the same.
    assert b" 101 " in asked(host, Authorization=f"Bearer {files.token}")[0]


def test_pages_of_other_sites_are_admitted_by_name(host: Host) -> None:
    server = start(host, "--allow-origin", "https://lab.example", "--allow-origin", "null")
    for origin, status in (("https://lab.example", b"101"), ("null", b"101"), ("https://evil.example", b"403")):
        assert asked(host, Origin=origin)[0].split()[1] == status
    server.stop()
    start(host, "--allow-origin", "*")
    assert asked(host, Origin="https://evil.example")[0].split()[1] == b"101"


PAGE = """<script>
const say = (text) => fetch("/said", {method: "POST", body: text});
const socket = (name, protocols) => new Promise((done) => {
  const it = new WebSocket("ws://" + name + "/", protocols);
  it.onopen = () => { it.close(); done("open " + it.protocol); };
  it.onerror = () => done("refused");
});
(async () => say(JSON.stringify([
  await socket("127.0.0.1:80", []),
  await socket("localhost:80", []),
  await socket("localhost:80", ["etherws.v1", "authorization.bearer." + location.hash.slice(1)]),
  await socket("localhost:80", ["authorization.bearer.wrong"]),
])))();
</script>"""


def test_a_real_browser(host: Host, files: Files, tmp_path: Path, tell: Tell) -> None:
    chromium = host.program("chromium")
    site = (
        "import http.server, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('Content-Type', 'text/html'); self.end_headers()\n"
        "        self.wfile.write(open(sys.argv[1], 'rb').read())\n"
        "    def do_POST(self):\n"
        "        print(self.rfile.read(int(self.headers['Content-Length'])).decode())\n"
        "        self.send_response(204); self.end_headers()\n"
        "    def log_message(self, *_): pass\n"
        "s = http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[2])), H); print('ready'); s.serve_forever()\n"
    )
    (tmp_path / "page.html").write_text(PAGE)
    web = host.run(sys.executable, "-c", site, str(tmp_path / "page.html"), "8000")
    web.says("ready")
    # The page's own site may; it has the port of the page's.
    server = start(host, "--token-file", str(files.tokens), "--allow-origin", "http://localhost:8000")

    def browse(times: int) -> list[str]:
        """What the page finds out."""
        browser = host.run(
            chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            f"--user-data-dir={tmp_path / str(times)}", "--remote-debugging-port=0",
            f"http://localhost:8000/#{files.token}", env={"HOME": str(tmp_path)},
        )  # fmt: skip
        web.says("]\n", times)
        browser.stop()
        found: list[str] = json.loads(web.output.split("\n")[times])
        return found

    assert browse(1) == ["refused", "refused", "open etherws.v1", "refused"]
    server.says("as 'robot' joined")
    # A page from elsewhere gets nowhere, token or not.
    server.stop()
    server = start(host, "--token-file", str(files.tokens))
    assert browse(2) == ["refused"] * 4
    server.says("a page of http://localhost:8000 was refused")
    tell("origin: a page in a real browser", "403", "the page gets an error event", "refused")


def test_the_set_ups_of_the_documentation(
    hosts: tuple[Host, Host], tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What README.rst and docs/security.rst say to type, with the names and addresses of these machines."""
    one, other = hosts
    monkeypatch.chdir(tmp_path)
    etherws = [sys.executable, "-m", "etherws"]
    subprocess.run([*etherws, "passwd", "--token", "--out", "branch1.token", "tokens", "branch1"], check=True)
    Path("policy.toml").write_text('[default]\nconnect = false\n[client."branch1"]\nconnect = true\nmacs = 64\n')
    checked = subprocess.run([*etherws, "check", "policy.toml"], capture_output=True, check=True, text=True)
    assert checked.stdout.startswith("OK      branch1       1 connection at once, at most 64 MAC addresses\n")
    pair, alone, card = authority.issue(), authority.issue(signed=False), authority.issue(("branch1",))
    public = subprocess.run(
        ["openssl", "x509", "-in", str(alone.cert), "-noout", "-pubkey"], capture_output=True, check=True
    )
    Path("server.pub").write_bytes(public.stdout)
    trusting, token = ["--cacert", str(authority.cert)], ["--token-file", "branch1.token"]
    own = ["--certfile", str(card.cert), "--keyfile", str(card.key)]
    for serving, demanded, joining_by in (
        (pair, ["--token-file", "tokens", "--policy", "policy.toml"], [*trusting, *token]),
        (pair, ["--client-ca", str(authority.cert)], [*trusting, *own]),
        (
            alone,
            ["--token-file", "tokens"],
            ["--insecure", "--pinnedpubkey", "server.pub", "--token-file", "branch1.token"],
        ),
    ):
        tls = ["--certfile", str(serving.cert), "--keyfile", str(serving.key)]
        server = one.etherws("server", "--foreground", *tls, *demanded)
        server.says("listening")
        running = other.etherws("client", "--foreground", "--uri", "wss://192.0.2.1/", *joining_by)
        running.says("connected to wss://192.0.2.1:443")
        server.says("as 'branch1' joined on ethws0")
        assert "warning" not in (server.output + running.output).lower()
        running.stop()
        server.stop()
