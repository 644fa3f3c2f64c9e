"""contrib/v86: a PC that v86 emulates in a real browser, on the LAN of an etherws server. What docs/browser.rst has is
typed as it stands."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import http.client
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab import typed
from tests.lab.chromium import AXE, Page, chromium, violations
from tests.lab.debian import PACKAGES_TIMEOUT, outside
from tests.lab.hosts import PATIENCE, Host, Process, cable, until
from tests.lab.pages import Machine, commands
from tests.lab.pki import Certificate, pin_of

CHECKOUT = Path(__file__).resolve().parents[2]
SERVE = CHECKOUT / "contrib/v86/serve.py"

#: What docs/browser.rst opens.
PAGE = "http://127.0.0.1:8000/"

#: Seconds for a boot, which takes 15 to 20 of one processor: others may have it meanwhile.
BOOT = 240


@pytest.fixture(scope="module")
def pc() -> None:
    """The PC's parts are in the cache."""
    make = f"import runpy; runpy.run_path({str(SERVE)!r})['machine']()"
    subprocess.run(outside([sys.executable, "-c", make]), check=True, timeout=PACKAGES_TIMEOUT)


@dataclass
class Lab:
    """The server's machine, a host on its LAN, the browser's tab, and its machine's page server."""

    server: Machine
    lan: Host
    page: Page
    serve: Process

    def join(self, token: str, inet: str = "") -> None:
        """Fill the page's form, and send it."""
        for name, value in (("token", token), ("inet", inet)):
            self.page.js(f"document.querySelector('#{name}').value = ''; document.querySelector('#{name}').focus()")
            self.page.type(value)
        self.page.key("Enter", "\r")

    def state(self, name: str) -> str:
        """Wait until the connection is in this state; return what the page says about it."""
        self.page.until(f"document.body.dataset.state === '{name}'")
        return str(self.page.js("document.querySelector('#state').textContent"))

    def screen(self, pattern: str, patience: float = BOOT) -> re.Match[str]:
        """Wait until the PC's screen shows this."""

        def shown() -> re.Match[str] | None:
            return re.search(pattern, self.page.js("document.querySelector('#screen').innerText"))

        found: re.Match[str] = until(shown, lambda: f"{pattern!r}; the page has {self.page.text()}", patience)
        return found

    def types(self, command: str) -> None:
        """Type into the PC."""
        self.page.js("document.querySelector('#screen').focus()")
        self.page.type(f"clear; {command}")
        self.page.key("Enter", "\r")


@pytest.fixture
def lab(pc: None, network: None, certificate: Certificate, tmp_path: Path) -> Iterator[Lab]:
    """The page is served, and open; the server does not run yet."""
    with contextlib.ExitStack() as stack:
        one, user, lan = (stack.enter_context(contextlib.closing(Host())) for _ in range(3))
        cable(one, user, "192.0.2.1/24", "192.0.2.2/24")
        one.namespace.cable("lan0", lan.namespace, "eth0")
        lan.add_address("eth0", "10.9.0.10/24")
        server = Machine(one, tmp_path / "server", {})
        for name, path in (("ssl.crt", certificate.cert), ("ssl.key", certificate.key)):
            (server.folder / "root" / name).write_bytes(path.read_bytes())
        (server.folder / "etc/etherws").mkdir()
        [line] = commands("browser.rst", "On your own machine")
        serve = user.run("sh", "-c", f"exec {line}", cwd=CHECKOUT)
        typed.note(line)
        serve.says("--allow-origin http://127.0.0.1:8000\n")
        stack.enter_context(user.namespace.inside())
        flags = (
            f"--ignore-certificate-errors-spki-list={pin_of(certificate).removeprefix('sha256//')}",
            "--host-resolver-rules=MAP lan.example.org 192.0.2.1",
        )
        page = stack.enter_context(chromium(tmp_path, *flags))
        page.open(PAGE)
        page.until("document.readyState === 'complete'")
        yield Lab(server, lan, page, serve)
        assert server.host.namespace.end(10)


@pytest.mark.packages
def test_a_pc_in_a_browser_joins_the_lan(lab: Lab, tmp_path: Path) -> None:
    page, server, lan = lab.page, lab.server, lab.lan
    lan.run(lan.program("dnsmasq"), "--keep-in-foreground", "--port=0", "--dhcp-range=10.9.0.50,10.9.0.50,1h",
            "--interface=eth0", f"--dhcp-leasefile={tmp_path / 'leases'}", "--log-facility=-", "--user=root",
            "--conf-file=/dev/null", "--pid-file=").says("DHCP, IP range")  # fmt: skip
    content = os.urandom(3 << 20)
    (tmp_path / "share").mkdir()
    (tmp_path / "share/file").write_bytes(content)
    lan.run(sys.executable, "-m", "http.server", "--directory", str(tmp_path / "share"), "80").says("Serving")

    # Nobody answers.
    lab.join("no-token")
    assert "No server answers at wss://lan.example.org/" in lab.state("away")

    # The server does not admit the page, and then not the token.
    token, start = commands("browser.rst", "On the server")
    server.types(token, start.partition(" --allow-origin")[0])
    pc1 = (server.folder / "root/pc1.token").read_text().strip()
    lab.join(pc1)
    assert "--allow-origin http://127.0.0.1:8000" in lab.state("refused")
    server.types("etherws stop", start)
    lab.join("wrong")
    assert "Is the token right?" in lab.state("refused")

    # Frames for all come while the PC boots, whose card takes none yet.
    server.host.command("ip link set lan0 master br0 up")
    broadcasts = lan.run("ping", "-b", "-q", "-i", "0.005", "10.9.0.255")
    lab.join(f" {pc1} ")
    assert lab.state("joined") == "The PC is on the LAN."
    lab.screen(r"inet 10\.9\.0\.50/24 .*\n(.*\n)*browser:/# ")
    broadcasts.stop()
    lab.types("ping -c 3 10.9.0.10")
    lab.screen("3 packets received, 0% packet loss")
    lab.types("wget -q -O /file http://10.9.0.10/file; sha256sum /file")
    assert lab.screen("([0-9a-f]{64})  /file")[1] == hashlib.sha256(content).hexdigest()
    # IPv6 needs multicasts, and the host asks the PC, too.
    lab.types("ping -6 -c 2 ff02::1%eth0; ip link")
    mac = lab.screen("link/ether ([0-9a-f:]{17}) .*\n(.*\n)*browser:/# ")[1]
    assert lan.run("ping", "-c", "3", "-M", "do", "-s", "1472", "10.9.0.50").ends() == 0
    assert mac in server.types("etherws status --json")

    if AXE.is_file():
        assert violations(page) == []

    # The server starts again: the PC is back by itself, with its address.
    server.types("etherws stop")
    assert "The next attempt is in" in lab.state("lost")
    server.types(start)
    server.host.command("ip link set lan0 master br0 up")
    lab.state("joined")
    lab.types("ping -c 4 10.9.0.10")
    lab.screen("4 packets received, 0% packet loss")

    # The operator ends its tunnel, and then another machine has its token: it stays out until it is asked to join.
    server.types("etherws kick pc1")
    assert lab.state("ended") == "The server has ended the connection: ended by the operator."
    lab.join(pc1)
    lab.state("joined")
    page.js(f"void new WebSocket('wss://lan.example.org/', ['etherws.v1', 'authorization.bearer.{pc1}'])")
    assert "the token is used elsewhere" in lab.state("ended")
    lab.join(pc1)
    lab.state("joined")
    lab.types("ping -c 5 10.9.0.10")
    lab.screen("5 packets received, 0% packet loss")

    # The console tells of connections that failed, as it should, and of nothing else.
    expected = re.compile("WebSocket connection to|Failed to load resource")
    assert [each for each in page.complaints() if not expected.search(each)] == []


@pytest.fixture(scope="module")
def serve() -> dict[str, Any]:
    """What contrib/v86/serve.py has."""
    return runpy.run_path(str(SERVE))


@pytest.mark.parametrize(
    ("typed_as", "address"),
    [
        ("wss://lan.example.org", "wss://lan.example.org/"),
        ("wss://LAN.example.org:8443/lab/one", "wss://lan.example.org:8443/lab/one"),
        ("ws://[2001:db8::1]:80/", "ws://[2001:db8::1]:80/"),
        ("https://lan.example.org/", None),
        ("lan.example.org", None),
        ("wss://", None),
        ("wss://lan.example.org:99999/", None),
        ("wss://pc1:secret@lan.example.org/", None),
        ("wss://lan.example.org/?token=secret", None),
        ("wss://lan.example.org/#secret", None),
        ("wss://lan.example.org/a; script-src *", None),
        ("wss://lan.example.org;script-src", None),
        ("wss://a b/", None),
        ("wss://*/", None),
        ("wss://[::1", None),
    ],
)
def test_the_servers_address(serve: dict[str, Any], typed_as: str, address: str | None) -> None:
    """It is a part of the page's security policy, so nothing but an address may pass."""
    if address is None:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            serve["server_address"](typed_as)
        assert "secret" not in str(caught.value)
    else:
        assert serve["server_address"](typed_as) == address


@pytest.mark.parametrize(
    ("typed_as", "address"),
    [
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:65535", ("localhost", 65535)),
        ("127.0.0.1:65536", None),
        ("127.0.0.1", None),
        ("8000", None),
        ("::1:8000", None),
        ("0.0.0.0:8000", None),
        ("[::]:8000", None),
        # The same two addresses.
        ("0:8000", None),
        ("0x0.0:8000", None),
        ("[0::0]:8000", None),
    ],
)
def test_where_the_page_is_served(serve: dict[str, Any], typed_as: str, address: tuple[str, int] | None) -> None:
    if address is None:
        with pytest.raises(argparse.ArgumentTypeError):
            serve["listen_address"](typed_as)
    else:
        assert serve["listen_address"](typed_as) == address


@pytest.mark.parametrize(
    ("server", "host", "words"),
    [
        ("wss://lan.example.org/", "127.0.0.1", []),
        ("wss://lan.example.org/", "::1", []),
        ("wss://lan.example.org/", "192.0.2.7", ["the page is not encrypted"]),
        ("ws://lan.example.org/", "2001:db8::7", ["ws:// is not encrypted", "the page is not encrypted"]),
    ],
)
def test_what_is_not_encrypted_is_said(serve: dict[str, Any], server: str, host: str, words: list[str]) -> None:
    assert [text.partition(": who")[0] for text in serve["warnings"](server, host)] == words


@pytest.mark.packages
def test_a_relative_folder_is_left_clean_when_nothing_can_be_fetched(tmp_path: Path) -> None:
    npm = tmp_path / "bin/npm"
    npm.parent.mkdir()
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    # What else it needs.
    for name in ("dpkg-deb", "cpio"):
        (npm.parent / name).symlink_to("/bin/true")
    line = ["sh", str(SERVE.with_name("make-machine")), "machine"]
    environ = {"PATH": f"{npm.parent}:{os.environ['PATH']}"}
    done = subprocess.run(line, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "no network\n")
    assert [each.name for each in tmp_path.iterdir()] == ["bin"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")
@pytest.mark.parametrize("depth", range(4))
def test_a_folder_of_another_user_is_not_used(
    serve: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    """As with root's sudo and that user's HOME."""
    home = tmp_path / "home"
    folder = serve["machine_folder"](home / ".cache")
    folder.mkdir(parents=True)
    os.chown([folder, *folder.parents][depth], 1000, 1000)
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    with pytest.raises(PermissionError, match="belongs to another user; set HOME or XDG_CACHE_HOME"):
        serve["machine"]()
    os.chown([folder, *folder.parents][depth], 0, 0)
    assert serve["machine"]() == folder


def test_the_page_is_sent_with_its_policy(serve: dict[str, Any], tmp_path: Path) -> None:
    folder = serve["machine_folder"](tmp_path)
    folder.mkdir(parents=True)
    (folder / "v86.wasm").write_bytes(b"wasm")
    argv = [sys.executable, str(SERVE), "ws://192.0.2.1:8080/lab", "--listen=127.0.0.1:0"]
    process = Process(argv, env={"XDG_CACHE_HOME": str(tmp_path)})
    try:
        said = process.says("--allow-origin").splitlines()
        assert "not encrypted" in said[0]
        origin = said[1].removeprefix("open ").removesuffix("/")
        assert said[2] == f"ws://192.0.2.1:8080/lab must let this page in: etherws server --allow-origin {origin}"
        connection = http.client.HTTPConnection(origin.removeprefix("http://"), timeout=PATIENCE)
        for method, path, status, content in (
            ("GET", "/?", 200, b'<code id="server">ws://192.0.2.1:8080/lab</code>'),
            ("GET", "/lan.js", 200, b"class Lan"),
            ("HEAD", "/v86.wasm", 200, b""),
            ("GET", "/../serve.py", 404, b"not found"),
            ("GET", "/page.html", 404, b"not found"),
        ):
            connection.request(method, path)
            answer = connection.getresponse()
            assert (answer.status, content in answer.read()) == (status, True), path
            policy = answer.headers["Content-Security-Policy"].split("; ")
            assert "default-src 'none'" in policy
            assert "connect-src 'self' ws://192.0.2.1:8080 http://192.0.2.1:8080" in policy
        connection.close()
        # The port is in use: another one says so.
        other = Process(
            [*argv[:-1], f"--listen={origin.removeprefix('http://')}"], env={"XDG_CACHE_HOME": str(tmp_path)}
        )
        assert other.ends() == 1
        assert "cannot serve at 127.0.0.1 port" in other.output
        process.signal(signal.SIGINT)
        assert process.ends() == 130
        assert process.output.count("\n") == 3
    finally:
        if process.running:
            process.stop()


class SlowVisitor:
    """A socket of one who reads 20 kB a second. As in sendall(), the timeout is for all that a write is given."""

    def __init__(self, timeout: float) -> None:
        self.most, self.got = int(20_000 * timeout), bytearray()

    def write(self, data: bytes) -> None:
        if len(data) > self.most:
            raise TimeoutError("timed out")
        self.got += data


def test_a_slow_visitor_gets_the_whole_of_a_file(serve: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The time in which a visitor must show a sign of life is not the time for a kernel of 6 MB."""
    content = os.urandom(6 << 20)
    monkeypatch.setattr(serve["Pages"], "files", {"/kernel": ("application/octet-stream", content)})
    handler = serve["Pages"].__new__(serve["Pages"])
    handler.path, handler.request_version, handler.requestline = "/kernel", "HTTP/1.1", "GET /kernel HTTP/1.1"
    handler.wfile = SlowVisitor(serve["TIMEOUT"])
    handler.do_GET()
    assert handler.wfile.got.partition(b"\r\n\r\n")[2] == content
