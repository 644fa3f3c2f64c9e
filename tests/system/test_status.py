"""What a real server and a real client say of themselves, against docs/status.rst and docs/logs.rst; and the commands
that ask them."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from click.testing import CliRunner, Result

from etherws.access import passwd
from etherws.cli.commands import main
from etherws.counters import Traffic
from etherws.events import KINDS
from etherws.tunnel.link_status import together
from tests.lab.control import fake
from tests.lab.hosts import PATIENCE, Host, Process, cable, until
from tests.lab.pki import Certificate
from tests.lab.subjects import FakeServer

DOCS = Path(__file__).resolve().parents[2] / "docs"

#: The tables of docs/status.rst for each kind of object, by headings and by the words before a table.
ANY, SERVER, CLIENT = "", "Of a server also:", "Of a client also:"


@dataclass
class Pair:
    """A server and a client, connected."""

    server: Process
    client: Process
    controls: dict[str, str]

    def run(self, role: str, *arguments: str) -> Result:
        """A command that asks one of them."""
        return CliRunner().invoke(main, [*arguments, "--control", self.controls[role]])

    def status(self, role: str) -> dict[str, Any]:
        """What one says."""
        found: dict[str, Any] = json.loads(self.run(role, "status", "--json").stdout)
        return found


@pytest.fixture(scope="module")
def pair(
    network: None, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory, control_folder: str
) -> Iterator[Pair]:
    """A server with tokens, a policy, TLS and a bridge; its client goes there because its first server is not there."""
    folder, token = tmp_path_factory.mktemp("status"), list[str]()
    passwd.add_token(str(folder / "tokens"), "branch1", token.append)
    (folder / "token").write_text(token[0])
    (folder / "policy.toml").write_text('[client.branch1]\nrate-up = "100 Mbit/s"\n')
    controls = {role: f"{control_folder}/status-{role}" for role in ("server", "client")}
    hosts = Host(), Host()
    try:
        cable(*hosts, "192.0.2.1/24", "192.0.2.2/24")
        server = hosts[0].etherws(
            "server", "--foreground", "--bridge", "br0", "--control", controls["server"],
            "--keyfile", str(certificate.key), "--certfile", str(certificate.cert), "--resume-timeout", "1h",
            "--token-file", str(folder / "tokens"), "--policy", str(folder / "policy.toml"),
        )  # fmt: skip
        server.says("listening")
        client = hosts[1].etherws(
            "client", "--foreground", "--bridge", "br0", "--control", controls["client"], "--insecure",
            "--uri", "wss://192.0.2.1:1/", "--uri", "wss://192.0.2.1/", "--token-file", str(folder / "token"),
        )  # fmt: skip
        client.says("connected to wss://192.0.2.1:443")
        server.says("joined on ethws0")
        yield Pair(server, client, controls)
    finally:
        for host in hosts:
            host.close()


def tables() -> dict[tuple[str, str], dict[str, str]]:
    """The types of fields that docs/status.rst lists, by heading and by the words before the table."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    heading = words = before = ""
    for line in (DOCS / "status.rst").read_text().splitlines():
        if re.fullmatch("~{3,}", line):
            heading, words = before, ANY
        elif line in (SERVER, CLIENT):
            words = line
        elif heading and (row := re.match(r"``([\w.]+)`` +([a-z][a-z ]*?)(?:  .*)?$", line)):
            found.setdefault((heading, words), {})[row[1]] = row[2]
        before = line
    return found


TABLES = tables()
OBJECTS = {"traffic": "Traffic", "totals": "Totals", "histogram": "A histogram"}
LISTS = {"sessions": "A session", "parked ports": "A parked port", "workers": "A worker", "connections": "A connection"}
TYPES = {
    "number": (int, float),
    "text": (str,),
    "yes or no": (bool,),
    "list": (list,),
    "counts": (dict,),
    "values": (dict,),
}


def flat(values: dict[str, Any], known: dict[str, str], prefix: str = "") -> dict[str, Any]:
    """The values by dotted names, as far as these are listed with dots."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        path = prefix + name
        if path not in known and isinstance(value, dict):
            found |= flat(value, known, f"{path}.")
        else:
            found[path] = value
    return found


def check(values: dict[str, Any], heading: str, role: str) -> None:
    """Raise AssertionError unless the object has the fields that are listed, and no others, with their types."""
    mine = SERVER if role == "server" else CLIENT
    known = {**TABLES[heading, ANY], **TABLES.get((heading, mine), {})}
    found = flat(values, known)
    absent = {path for path in known if found.get(path.partition(".")[0], 0) is None}
    assert found.keys() - {path.partition(".")[0] for path in absent} == known.keys() - absent
    for path, value in found.items():
        if path not in known:
            continue
        kind = known[path]
        if value is None:
            assert kind.endswith(" or null"), path
        elif kind in OBJECTS:
            check(value, OBJECTS[kind], role)
        elif kind in LISTS:
            for each in value:
                check(each, LISTS[kind], role)
        else:
            types = TYPES[kind.removesuffix(" or null")]
            assert isinstance(value, types), f"{heading}: {path} is {value!r}, not {kind}"
            assert bool in types or not isinstance(value, bool), path


def test_all_that_is_said_is_documented_and_what_is_documented_is_said(pair: Pair) -> None:
    assert len(TABLES) == 12
    for role in ("server", "client"):
        status = pair.status(role)
        assert len(status["sessions"]) == 1
        check(status, "The whole", role)
    check({"pid": 1, "sessions": 2, "answers": False}, "A worker", "server")
    # As one session of a link would be.
    (session,) = pair.status("server")["sessions"]
    for each in together({0: session, 1: {"worker": 7}}, (Traffic(), Traffic(), {}))["connections"]:
        check(each, "A connection", "server")


def test_what_is_said_is_true(pair: Pair) -> None:
    server, client = pair.status("server"), pair.status("client")
    (there,), (here,) = server["sessions"], client["sessions"]
    assert (there["identity"], there["address"], there["device"], there["bridge"]) == (
        "branch1", "192.0.2.2", "ethws0", "br0",
    )  # fmt: skip
    assert (here["server"], here["address"], here["proxy"]) == ("wss://192.0.2.1:443", "192.0.2.1", None)
    assert (server["pid"], client["pid"]) == (pair.server.pid, pair.client.pid)
    assert there["policy"]["rate_up"] == 100_000_000
    for each in (there, here):
        assert (each["wire"], each["tls"]["version"], each["peer_mtu"]) == (2, "TLSv1.3", 1500)
    link = client["link"]
    assert (client["state"], link["attempts"], link["next_attempt"]) == ("connected", 0, None)
    # Why it is not connected to its first server.
    assert link["last_error"].startswith("wss://192.0.2.1:1: Connection refused")
    assert server["warnings"] == []
    text = pair.run("server", "status").stdout
    assert text.startswith("server ethws0: serving, 1 client, 0 parked, for ")
    assert "\nbranch1  192.0.2.2  ethws0 " in text
    assert pair.run("server", "status", "--client", "branch1").stdout.startswith("client branch1\n")
    assert pair.run("client", "status").stdout.startswith("client ethws0: connected to wss://192.0.2.1:443\n")


def test_events_are_of_kinds_and_values_that_are_documented(pair: Pair) -> None:
    kinds = (DOCS / "logs.rst").read_text().partition("\nKinds\n")[2]
    rows = dict(re.findall(r"^``(\w+)`` +((?:.|\n {13})*)", kinds, re.MULTILINE))
    assert set(rows) == set(KINDS)
    named = {kind: {*re.findall(r"``(\w+)``", text)} for kind, text in rows.items()}
    named["leave"] |= named["join"]
    found = [
        json.loads(line)
        for role in ("server", "client")
        for line in pair.run(role, "events", "--json").stdout.splitlines()
    ]
    assert {each["kind"] for each in found} >= {"start", "join", "failed", "connect"}
    for each in found:
        own = each.keys() - {"number", "time", "level", "kind", "text"}
        assert own <= named[each["kind"]] or each["kind"] == "start", each
    lines = pair.run("client", "events").stdout.splitlines()
    assert any(" warning failed  cannot connect to wss://192.0.2.1:1: " in line for line in lines)
    assert any(" info    connect ethws0 is up, connected to wss://192.0.2.1:443" in line for line in lines)


def test_a_terminal_is_drawn_again_and_given_back(short: Path) -> None:
    with fake(short / "control", FakeServer(60)):
        pid, terminal = pty.fork()
        if pid == 0:
            # A shell lets what it starts in the background ignore Ctrl-C.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.environ.update(COLUMNS="90", LINES="20", TERM="xterm")
            os.execv(
                sys.executable, [sys.executable, "-m", "etherws", "status", "--watch", "--control", f"{short}/control"]
            )
        seen = read(terminal, b"\x1b[J")
        # SIGINT as the terminal sends it.
        os.kill(pid, signal.SIGINT)
        seen += read(terminal, b"\x1b[?1049l")
        assert os.waitpid(pid, 0)[1] == 0
        os.close(terminal)
    begin, _, shown = seen.partition(b"\x1b[H")
    assert begin == b"\x1b[?1049h\x1b[?25l"
    lines = shown.partition(b"\x1b[J")[0].replace(b"\x1b[K", b"").decode().split("\r\n")
    assert len(lines) == 20
    assert lines[2].startswith("server ethws0: serving, 60 clients")
    assert lines[-1].endswith("more lines; etherws status shows them all")
    assert all(len(line) <= 90 for line in lines)


def read(terminal: int, until_bytes: bytes) -> bytes:
    """What comes from the terminal until these bytes have come."""
    data, end = b"", monotonic() + PATIENCE
    # It never goes quiet: the screen is drawn again and again.
    while until_bytes not in data:
        assert select.select([terminal], [], [], max(0.0, end - monotonic()))[0], data
        data += os.read(terminal, 65536)
    return data


@pytest.fixture
def short(control_folder: str) -> Path:
    """A folder with a short name."""
    found = Path(control_folder) / "watch"
    found.mkdir()
    return found


def test_what_is_told_is_done(pair: Pair) -> None:
    """The last test: nothing is left of the pair."""
    done = pair.run("client", "kick", "branch1")
    assert (done.exit_code, "this is a client" in done.stderr) == (1, True)
    assert "to drain" in pair.run("client", "drain").stderr
    assert pair.run("server", "kick", "branch1").stdout == "ended: 192.0.2.2 as 'branch1'\n"
    pair.client.says("code 1008: ended by the operator")
    until(lambda: pair.status("client")["state"] == "waiting", "the client to wait")
    text = pair.run("client", "status").stdout
    assert "last error  lost wss://192.0.2.1:443: closed by the peer, code 1008: ended by the operator" in text
    # At once, and not after half a minute.
    assert pair.run("client", "reload").exit_code == 0
    pair.client.says("connected to wss://192.0.2.1:443", times=2)
    assert pair.status("client")["link"]["reconnects"] == 1

    pair.client.signal(signal.SIGKILL)
    assert pair.client.ends() == -signal.SIGKILL
    done = pair.run("client", "status")
    assert (done.exit_code, "which a process that was killed has left" in done.stderr) == (69, True)
    until(lambda: pair.status("server")["parked"], "its port to be parked")
    (parked,) = pair.status("server")["parked"]
    check(parked, "A parked port", "server")
    assert "client branch1: lost " in pair.run("server", "status", "--client", "branch1").stdout
    assert pair.run("server", "kick", "branch1").exit_code == 0
    until(lambda: not pair.status("server")["parked"], "its port to be removed")
    assert pair.run("server", "kick", "branch1").exit_code == 1

    assert pair.run("server", "stop").stdout.endswith("has ended\n")
    assert pair.server.ends() == 0
