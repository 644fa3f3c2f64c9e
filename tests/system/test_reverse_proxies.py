"""The configurations and commands of docs/reverse-proxies.rst, as they stand, in real proxies."""

from __future__ import annotations

import grp
import os
import re
import shlex
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from tests.lab import typed
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.pages import all_commands
from tests.lab.peer import request
from tests.lab.pki import Certificate

PAGE = Path(__file__).parents[2] / "docs" / "reverse-proxies.rst"

#: The proxies give up root for this user, which must get at the socket by its group.
USER = "www-data"

STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")


def literal_blocks() -> list[str]:
    """The literal blocks of the page."""
    found = re.findall(r"::\n\n((?:  .*\n|\n(?=\n*  ))+)", PAGE.read_text())
    return [dedent(block) for block in found]


def configuration(title: str) -> str:
    """The block that begins with this comment."""
    (found,) = [block for block in literal_blocks() if block.startswith(f"# {title}\n")]
    return found


def commands() -> list[list[str]]:
    """The arguments of each `etherws server`, in the order of the page."""
    text = "".join(literal_blocks()).replace("\\\n", "")
    return [shlex.split(line)[3:] for line in text.splitlines() if line.startswith("# etherws server")]


class Site:
    """A machine's files, where the page's are but for the folder in front, and its user's rights to them."""

    def __init__(self, folder: Path, certificate: Certificate) -> None:
        self.folder = folder
        folder.chmod(0o755)
        for name in ("ssl", "www", "tmp"):
            (folder / name).mkdir()
        self.run = folder / "run"
        (install,) = (line for line in all_commands("reverse-proxies.rst") if line.startswith("install "))
        subprocess.run(shlex.split(self.here(install)), check=True)
        typed.note(install)
        (folder / "www" / "index.html").write_text("a page of the site\n")
        for name in ("localhost", "www.example.com"):
            shutil.copy(certificate.cert, folder / "ssl" / f"{name}.crt")
            shutil.copy(certificate.key, folder / "ssl" / f"{name}.key")
        (folder / "ssl" / "localhost.pem").write_text(certificate.cert.read_text() + certificate.key.read_text())

    def here(self, text: str) -> str:
        """The page's text with this machine's names."""
        for there, here in (
            ("/run/etherws", str(self.run)),
            ("/etc/ssl", str(self.folder / "ssl")),
            ("/var/www/html", str(self.folder / "www")),
            ("lan.example.com", "localhost"),
        ):
            text = text.replace(there, here)
        return text

    def write(self, name: str, text: str) -> str:
        """A file of this machine; returns its path."""
        path = self.folder / name
        path.write_text(self.here(text))
        return str(path)


@pytest.fixture
def site(certificate: Certificate) -> Iterator[Site]:
    """Files of a machine."""
    if os.geteuid() != 0:
        pytest.skip("these proxies change their user, which only root can")
    if USER not in (group.gr_name for group in grp.getgrall()):
        pytest.skip(f"no group {USER} on this machine")
    # The user must get there, and pytest's folders are for root alone.
    with tempfile.TemporaryDirectory(prefix="etherws-") as folder:
        yield Site(Path(folder), certificate)


def program(name: str) -> str:
    """The path of a program; skips the test if there is none."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        pytest.skip(f"no program {name} on this machine")
    return found


def nginx(host: Host, site: Site, main: str = "", http: str = "") -> Process:
    """Start nginx with these sections."""
    module = ""
    if main:
        if not STREAM_MODULE.exists():
            pytest.skip("nginx has no stream module on this machine")
        module = f"load_module {STREAM_MODULE};"
    temporary = "".join(
        f"{kind}_temp_path {site.folder}/tmp/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"""
        daemon off; user {USER}; worker_processes 1; pid {site.folder}/nginx.pid; error_log stderr; {module}
        events {{ }}
        http {{ access_log off; {temporary}
        {http} }}
        {main}
    """
    return host.run(program("nginx"), "-e", "stderr", "-p", str(site.folder), "-c", site.write("nginx.conf", text))


def nginx_ended(host: Host, site: Site) -> Process:
    """nginx that ends TLS."""
    return nginx(host, site, http=configuration("/etc/nginx/sites-available/lan.example.com"))


def nginx_passed(host: Host, site: Site) -> Process:
    """nginx that passes TLS through."""
    main = configuration("/etc/nginx/nginx.conf, behind the http section")
    return nginx(host, site, main, configuration("/etc/nginx/sites-available/www.example.com"))


def haproxy(host: Host, site: Site, text: str) -> Process:
    """Start HAProxy with these sections."""
    text = f"global\n    user {USER}\n    chroot {site.folder}/tmp\n    log stdout format raw daemon err\n" + text
    return host.run(program("haproxy"), "-db", "-f", site.write("haproxy.cfg", text))


def haproxy_ended(host: Host, site: Site) -> Process:
    """HAProxy that ends TLS, and a site behind it."""
    running = haproxy(host, site, configuration("/etc/haproxy/haproxy.cfg, TLS ended here"))
    host.run(
        *(sys.executable, "-m", "http.server", "8080", "--bind", "127.0.0.1", "--directory", str(site.folder / "www"))
    ).says("Serving")
    return running


TLS_SITE = """
import functools, http.server, ssl, sys
folder, cert, key = sys.argv[1:]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
server = http.server.HTTPServer(("127.0.0.1", 8443), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("serving")
server.serve_forever()
"""


def haproxy_passed(host: Host, site: Site) -> Process:
    """HAProxy that passes TLS through, and a site behind it."""
    running = haproxy(host, site, configuration("/etc/haproxy/haproxy.cfg, TLS passed through"))
    paths = [site.folder / "www", *(site.folder / "ssl" / f"www.example.com.{end}" for end in ("crt", "key"))]
    host.run(sys.executable, "-c", TLS_SITE, *map(str, paths)).says("serving")
    return running


def caddy(host: Host, site: Site) -> Process:
    """Caddy, without the parts that ask the Internet or leave something behind."""
    text = "{\n    admin off\n    auto_https disable_redirects\n}\n"
    path = site.write("Caddyfile", text + configuration("/etc/caddy/Caddyfile"))
    home = {name: str(site.folder / "tmp") for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    return host.run(program("caddy"), "run", "--adapter", "caddyfile", "--config", path, env=home)


def apache(host: Host, site: Site) -> Process:
    """Apache httpd, with the modules that the page names and those that every Debian has on."""
    modules = ["mpm_event", "authz_core", "dir", "mime", "socache_shmcb", "ssl", "headers", "proxy", "proxy_http"]
    load = "".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n" for name in modules)
    text = f"""
        ServerName localhost
        User {USER}
        Group {USER}
        PidFile {site.folder}/apache.pid
        DefaultRuntimeDir {site.folder}
        ErrorLog /dev/stderr
        Listen 443
        {load}
        TypesConfig /dev/null
    """
    text += configuration("/etc/apache2/sites-available/lan.example.com.conf")
    return host.run(program("apache2"), "-X", "-d", str(site.folder), "-f", site.write("apache2.conf", text))


class Case(NamedTuple):
    """A proxy, which of the page's commands is behind it, and the tunnel's path and the site's name in front."""

    proxy: Callable[[Host, Site], Process]
    command: int
    path: str = "/lan"
    name: str = "localhost"


CASES = {
    "nginx": Case(nginx_ended, 0),
    "nginx, TLS passed": Case(nginx_passed, 2, "/", "www.example.com"),
    "HAProxy": Case(haproxy_ended, 1),
    "HAProxy, TLS passed": Case(haproxy_passed, 3, "/", "www.example.com"),
    "Caddy": Case(caddy, 0),
    "Apache": Case(apache, 0),
}

#: Where HTTP comes out of the proxy.
ENDED = {name: case for name, case in CASES.items() if case.path == "/lan"}


def speak(host: Host, name: str, data: bytes) -> ssl.SSLSocket:
    """Send a request to the proxy by TLS."""
    sock = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(("192.0.2.1", 443))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    tls = context.wrap_socket(sock, server_hostname=name)
    tls.sendall(data)
    return tls


def visit(host: Host, name: str, data: bytes) -> bytes:
    """What the proxy answers to a request by TLS, up to the end."""
    answer = b""
    with speak(host, name, data) as tls:
        while more := tls.recv(65536):
            answer += more
    return answer


def wait_for(host: Host, running: Process) -> None:
    """Wait until the proxy takes connections."""

    def connects() -> bool:
        assert running.running, running.output
        with host.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE)
            return sock.connect_ex(("192.0.2.1", 443)) == 0

    until(connects, lambda: f"the proxy to listen; it said: {running.output}")


#: Runs etherws where the name of the certificate is the proxy's.
WITH_HOSTS = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_PRIVATE_REC, MS_BIND = 0x20000, 0x44000, 0x1000
assert libc.unshare(CLONE_NEWNS) == 0
libc.mount(b"none", b"/", None, MS_PRIVATE_REC, None) == 0 or sys.exit(77)
assert libc.mount(sys.argv[1].encode(), b"/etc/hosts", None, MS_BIND, None) == 0
os.execv(sys.executable, [sys.executable, "-m", "etherws", *sys.argv[2:]])
"""


@pytest.mark.types
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_tunnel_goes_through_and_the_site_stays(
    hosts: tuple[Host, Host], site: Site, certificate: Certificate, case: Case
) -> None:
    near, far = hosts
    far.needs_mounts()
    proxy = case.proxy(near, site)
    arguments = commands()[case.command]
    server = near.etherws("server", "--foreground", *(site.here(word) for word in arguments))
    server.says("listening")
    typed.note(shlex.join(["etherws", "server", *arguments]))
    wait_for(far, proxy)
    names = site.write("hosts", "192.0.2.1 localhost\n")
    uri = f"wss://localhost{case.path}"
    options = ("client", "--foreground", uri, "--cacert", str(certificate.cert))
    client = far.run(sys.executable, "-c", WITH_HOSTS, names, *options)
    # The client's own address, not the proxy's.
    server.says("192.0.2.2 joined on ethws0, by version 2 of the wire")
    client.says("connected")
    ends = [host.frames("ethws0") for host in hosts]
    for sender, receiver in (ends, ends[::-1]):
        for size in (14, 1514):
            for seed in range(20):
                sender.send(frame(size, seed=seed))
                assert receiver.receive() == frame(size, seed=seed)
    asked = f"GET / HTTP/1.1\r\nHost: {case.name}\r\nConnection: close\r\n\r\n".encode()
    assert b"a page of the site" in visit(far, case.name, asked)
    client.stop()
    server.says("192.0.2.2 left ethws0")
    # Nothing that the proxy does by itself is a mistake, as its health checks.
    assert "the proxy" not in server.output


#: Opens a socket as systemd does, and executes etherws with it.
AS_SYSTEMD = """if True:
    import grp, os, socket, sys
    path, group, mode, *command = sys.argv[1:]
    os.umask(0o777 & ~int(mode, 8))
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(path)
    os.chown(path, -1, grp.getgrnam(group).gr_gid)
    sock.listen()
    os.dup2(sock.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="etherws-server@lan.socket")
    os.execv(sys.executable, [sys.executable, "-m", "etherws", *command])
"""


def test_systemds_drop_in_does_the_same_as_the_command(host: Host, site: Site) -> None:
    lines = site.here(configuration("/etc/systemd/system/etherws-server@lan.socket.d/proxy.conf")).splitlines()
    options = dict(line.split("=", 1) for line in lines if "=" in line)
    env = {"ETHERWS_SERVER_PATH": "/lan", "ETHERWS_SERVER_TRUSTED_PROXY": "unix", "PYTHONSAFEPATH": "1"}
    path = options["ListenStream"]
    arguments = (path, options["SocketGroup"], options["SocketMode"], "server", "--foreground")
    host.run(sys.executable, "-c", AS_SYSTEMD, *arguments, env=env).says(f"listening on unix:{path} for ws, path /lan")
    with socket.socket(socket.AF_UNIX) as proxy:
        proxy.connect(path)
        proxy.sendall(b"GET /lan HTTP/1.1\r\nHost: lan\r\nX-Forwarded-For: 192.0.2.9\r\nConnection: close\r\n\r\n")
        assert proxy.makefile("rb").readline().split()[1] == b"426"


@pytest.mark.parametrize("case", ENDED.values(), ids=ENDED)
def test_headers_arrive_as_the_proxy_has_them(hosts: tuple[Host, Host], site: Site, case: Case) -> None:
    near, far = hosts
    if case.command == 0:
        behind = near.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        behind.bind(str(site.run / "etherws.sock"))
        (site.run / "etherws.sock").chmod(0o660)
    else:
        behind = near.socket(socket.AF_INET, socket.SOCK_STREAM)
        behind.bind(("127.0.0.1", 8081))
    behind.listen()
    behind.settimeout(PATIENCE)
    wait_for(far, case.proxy(near, site))
    lies = {"Forwarded": "for=6.6.6.6", "X_Forwarded_For": "7.7.7.7", "X_Forwarded_Proto": "http"}
    asked = request("GET /lan HTTP/1.1", Host="localhost", Authorization="Basic eDp5", **lies)
    with speak(far, "localhost", asked):
        connection, _ = behind.accept()
        with connection:
            connection.settimeout(PATIENCE)
            got = b""
            while b"\r\n\r\n" not in got:
                got += connection.recv(65536)
    lines = got.decode().lower().split("\r\n")
    assert lines[0] == "get /lan http/1.1"
    headers: dict[str, str] = {}
    for line in lines[1:-2]:
        name, _, value = line.partition(":")
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    assert headers["x-forwarded-for"].split(", ")[-1] == "192.0.2.2"
    assert headers["x-forwarded-proto"] == "https"
    assert "forwarded" not in headers
    assert headers["authorization"] == "basic edp5"
    assert headers["upgrade"] == "websocket"
    assert headers["connection"] == "upgrade"


@pytest.mark.parametrize(
    ("dropped", "status", "words"),
    [
        ("proxy_http_version 1.1;", b"400", b"a WebSocket needs HTTP/1.1, not HTTP/1.0; .* nginx: proxy_http_version"),
        ("proxy_set_header Upgrade $http_upgrade;", b"426", b"nginx: proxy_set_header Upgrade $http_upgrade"),
        ('proxy_set_header Connection "upgrade";', b"400", b'nginx: proxy_set_header Connection "upgrade"'),
    ],
)
def test_what_a_proxy_drops_is_named_with_the_mend(
    hosts: tuple[Host, Host], site: Site, dropped: str, status: bytes, words: bytes
) -> None:
    near, far = hosts
    server = near.etherws("server", "--foreground", *(site.here(word) for word in commands()[0]))
    server.says("listening")
    http = configuration("/etc/nginx/sites-available/lan.example.com")
    assert dropped in http
    # The default of older versions; nginx 1.30 speaks 1.1 unasked.
    default = "proxy_http_version 1.0;" if dropped.startswith("proxy_http_version") else ""
    wait_for(far, nginx(near, site, http=http.replace(dropped, default)))
    answer = visit(far, "localhost", request("GET /lan HTTP/1.1", Host="localhost", Connection="close, Upgrade"))
    assert answer.startswith(b"HTTP/1.1 " + status)
    for part in words.split(b".*"):
        assert part in answer
    assert b"see docs/reverse-proxies.rst" in answer


@pytest.mark.parametrize(
    ("added", "versions", "servers", "clients"),
    [
        ('proxy_set_header Etherws-Features "";', [1], "it offers version 2, without the header Etherws-Features", ""),
        ("proxy_hide_header Etherws-Features;", [2, 1], "", "it chose etherws.v2 without the header Etherws-Features"),
        ("proxy_hide_header Sec-WebSocket-Protocol;", [2, 1], "", "removed Sec-WebSocket-Protocol from its answer"),
    ],
)
def test_a_proxy_that_removes_a_header_leaves_version_1_and_the_log_says_so(
    hosts: tuple[Host, Host],
    site: Site,
    certificate: Certificate,
    added: str,
    versions: list[int],
    servers: str,
    clients: str,
) -> None:
    near, far = hosts
    far.needs_mounts()
    server = near.etherws("server", "--foreground", *(site.here(word) for word in commands()[0]))
    server.says("listening")
    http = configuration("/etc/nginx/sites-available/lan.example.com")
    http = http.replace("proxy_buffering off;", f"proxy_buffering off; {added}")
    assert added in http
    wait_for(far, nginx(near, site, http=http))
    options = ("client", "--foreground", "wss://localhost/lan", "--cacert", str(certificate.cert))
    client = far.run(sys.executable, "-c", WITH_HOSTS, site.write("hosts", "192.0.2.1 localhost\n"), *options)
    client.says("connected")
    server.says(f"joined on ethws0, by version {versions[-1]} of the wire")
    ends = [host.frames("ethws0") for host in hosts]
    for sender, receiver in (ends, ends[::-1]):
        sender.send(frame(1514))
        assert receiver.receive() == frame(1514)
    # There is one port, which the second connection gets at once.
    assert [int(version) for version in re.findall("ethws0, by version ([0-9])", server.output)] == versions
    for process, words in ((server, servers), (client, clients)):
        warnings = [line for line in process.output.splitlines() if "version 1" in line and "WARNING" in line]
        assert len(warnings) == (1 if words else 0)
        assert all(words in line for line in warnings)


def test_a_proxy_with_nothing_behind_it_is_told_from_etherws(
    hosts: tuple[Host, Host], site: Site, certificate: Certificate
) -> None:
    near, far = hosts
    far.needs_mounts()
    wait_for(far, nginx_ended(near, site))
    options = ("client", "--foreground", "wss://localhost/lan", "--cacert", str(certificate.cert))
    client = far.run(sys.executable, "-c", WITH_HOSTS, site.write("hosts", "192.0.2.1 localhost\n"), *options)
    client.says("answered 502 Bad Gateway; a proxy answers, but cannot reach etherws behind it")
