#!/usr/bin/env python3
"""Serves a page in which a PC boots, and joins the LAN of an etherws server: ``python3 contrib/v86/serve.py
wss://SERVER/``, and open the address that it prints. docs/browser.rst says what the server needs for that.

It has no part in the tunnel, which is the browser's. It needs nothing but Python; what the PC is made of, make-machine
beside this file fetches once. The page's own part is in page/, where lan.js has the connection.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import http.server
import ipaddress
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent

#: What make-machine makes a machine of: another one is made when these change.
RECIPE = ("make-machine", *sorted(str(path.relative_to(HERE)) for path in HERE.glob("machine/**/*") if path.is_file()))

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}

#: Seconds for which a visitor may say nothing, and in which a slice of a file must be sent.
TIMEOUT = 10

#: Bytes of a slice: sendall() has its timeout for all that it is given, and a kernel may take a slow visitor a minute.
SLICE = 64 * 1024

#: The scheme at which a browser asks whether a server is there, for each that a WebSocket has.
HTTP = {"ws": "http", "wss": "https"}


def server_address(text: str) -> str:
    """The address of the etherws server, such as wss://lan.example.org/, as a browser writes it."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise argparse.ArgumentTypeError(f"{text!r} is no address: {exc}") from None
    # It becomes a part of the security policy, in which blanks, commas and semicolons have a meaning.
    if parts.scheme not in HTTP or not re.fullmatch(r"[\w.-]+|[0-9a-f:]+", parts.hostname or "", re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r} is no ws://HOST/ or wss://HOST/")
    if parts.username is not None or parts.query or parts.fragment or not re.fullmatch(r"[\w/.~-]*", parts.path):
        raise argparse.ArgumentTypeError(
            "write the scheme, the host, the port and the path only; the page asks for the token"
        )
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path or '/'}"


def listen_address(text: str) -> tuple[str, int]:
    """ADDRESS:PORT, of which the address may be an IPv6 one in brackets."""
    found = re.fullmatch(r"\[([0-9a-fA-F:.]+)\]:(\d{1,5})|([\w.-]+):(\d{1,5})", text)
    if not found or int(found[2] or found[4]) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no ADDRESS:PORT")
    host, port = found[1] or found[3], int(found[2] or found[4])
    if stands_for_all(host):
        raise argparse.ArgumentTypeError(
            "name one address of this machine: the page's origin, which the server lets in, has it"
        )
    return host, port


def stands_for_all(host: str) -> bool:
    """Whether it is the address that means all of this machine's, in any notation, such as 0 or 0::0."""
    try:
        return ipaddress.ip_address(host if ":" in host else socket.inet_aton(host)).is_unspecified
    except (OSError, ValueError):
        return False


def machine_folder(cache: Path) -> Path:
    """Where the PC's parts are in the user's folder of caches."""
    key = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in RECIPE)).hexdigest()[:16]
    return cache / "etherws" / f"v86-{key}"


def machine() -> Path:
    """The folder with the PC's parts, made if it is not there. Raises OSError and CalledProcessError."""
    folder = machine_folder(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser())
    # As with sudo and that user's HOME: links there would have any file of root's sent to all who open the page.
    for each in (folder, *folder.parents[:3]):
        if each.exists() and each.stat().st_uid not in (os.geteuid(), 0):
            raise PermissionError(f"{each} belongs to another user; set HOME or XDG_CACHE_HOME to a folder of your own")
    if not folder.is_dir():
        print(f"making a PC in {folder}, once", flush=True)
        subprocess.run(["sh", str(HERE / "make-machine"), str(folder)], check=True)
    return folder


def policy(server: str) -> str:
    """What the page may do (Content Security Policy Level 3): run its own files, compile the emulator's WebAssembly,
    and reach this server. The emulator keeps its time in a worker that it makes of a text."""
    origin = server[: server.index("/", server.index("//") + 2)]
    scheme, _, rest = origin.partition("://")
    return "; ".join(
        (
            "default-src 'none'",
            "script-src 'self' 'wasm-unsafe-eval'",
            "worker-src blob:",
            "style-src 'self'",
            # The page's icon, which is none.
            "img-src data:",
            f"connect-src 'self' {origin} {HTTP[scheme]}://{rest}",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def warnings(server: str, host: str) -> Iterator[str]:
    """What is not safe about this server's address, and about a page that is served at the IP address `host`."""
    if server.startswith("ws:"):
        yield "ws:// is not encrypted: who is on the way can read the token and all frames, and change them"
    if not ipaddress.ip_address(host).is_loopback:
        yield "the page is not encrypted: who is on the way can change it, and so read the token that is typed there"


class Pages(http.server.BaseHTTPRequestHandler):
    """Sends the files, which are the same for everybody."""

    files: dict[str, tuple[str, bytes]] = {}
    policy = ""
    protocol_version = "HTTP/1.1"
    timeout = TIMEOUT

    def do_GET(self) -> None:
        """Send a file."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send a file's headers."""
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        name = self.path.partition("?")[0]
        kind, content = self.files.get(name, ("text/plain; charset=utf-8", b"not found\n"))
        self.send_response(200 if name in self.files else 404)
        for header, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(content))),
            ("Cache-Control", "no-cache"),
            ("Content-Security-Policy", self.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ):
            self.send_header(header, value)
        self.end_headers()
        for begin in range(0, len(content) if body else 0, SLICE):
            self.wfile.write(content[begin : begin + SLICE])

    def log_message(self, *_: object) -> None:
        """Say nothing: who reads the page is of no interest."""


class Server(http.server.ThreadingHTTPServer):
    """One thread for each visitor."""

    def __init__(self, address: tuple[str, int]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, Pages)

    def handle_error(self, *_: object) -> None:
        """A visitor has gone, or is silent."""


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(
        description="Serve a page in which a PC boots, and joins the LAN of an etherws server."
    )
    parser.add_argument("server", type=server_address, help="the server's address, such as wss://lan.example.org/")
    parser.add_argument(
        "--listen",
        type=listen_address,
        default="127.0.0.1:8000",
        metavar="ADDRESS:PORT",
        help="where to serve the page  [default: 127.0.0.1:8000, for this machine only]",
    )
    options = parser.parse_args()
    try:
        made = machine()
    except subprocess.CalledProcessError:
        sys.exit("the PC could not be made: see above")
    except OSError as exc:
        sys.exit(f"the PC could not be made: {exc}")
    try:
        server = Server(options.listen)
    except OSError as exc:
        sys.exit(f"cannot serve at {options.listen[0]} port {options.listen[1]}: {exc}")
    for path in (*(HERE / "page").iterdir(), *made.iterdir()):
        Pages.files[f"/{path.name}"] = TYPES.get(path.suffix, "application/octet-stream"), path.read_bytes()
    kind, content = Pages.files.pop("/page.html")
    Pages.files["/"] = kind, content.replace(b"SERVER", html.escape(options.server).encode())
    Pages.policy = policy(options.server)
    host, port = str(server.server_address[0]), server.server_port
    origin = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    for warning in warnings(options.server, host):
        print(warning)
    print(f"open {origin}/")
    print(f"{options.server} must let this page in: etherws server --allow-origin {origin}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
