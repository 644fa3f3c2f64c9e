"""What a running server shows, and what an operator does to its clients: one process, --workers, and gunicorn."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from etherws.access import passwd
from etherws.cli.operate.control import Control
from etherws.counters import Values
from etherws.errors import EtherwsError
from tests.lab.frames import BROADCAST, frame
from tests.lab.hosts import Host, Process, until
from tests.lab.lan import source
from tests.lab.peer import Peer, basic, masked, request
from tests.lab.servers import gunicorn

#: A name that may do harm where it is shown. One that cannot be printed, or is long, is in no file of passwords, but
#: may be in a certificate: tests/server/test_observed.py.
HOSTILE = "<script>alert('1')</script>&\"" + "x" * 60

PROXY = "127.0.0.2"


class Running:
    """A server with some users, each of which is its own password; `several` says whether it has workers."""

    def __init__(self, host: Host, mode: str, folder: Path) -> None:
        self.host, self.mode, self.several = host, mode, mode != "one process"
        passwords = folder / "passwords"
        for name in ("alice", "bob", "carol", "dave"):
            passwd.set_password(passwords, name, name, cost=4)
        line = passwords.read_text().splitlines()[0]
        passwords.write_text(f"{passwords.read_text()}{HOSTILE}{line.removeprefix('alice')}\n")
        self.control = Control(str(folder / "control"))
        self.process: Process
        if mode == "gunicorn":
            pytest.importorskip("gunicorn", reason="gunicorn is not installed")
            self.process = gunicorn(
                host, "-b", "127.0.0.1:80", "-w", "2", ETHERWS_SERVER_BRIDGE="br0",
                ETHERWS_SERVER_HTPASSWD=str(passwords), ETHERWS_SERVER_CONTROL=str(folder / "control"),
                ETHERWS_SERVER_TRUSTED_PROXY=PROXY,
            )  # fmt: skip
        else:
            self.process = host.etherws(
                "server", "--foreground", "--bridge", "br0", "--address", "127.0.0.1", "--port", "80", "--workers",
                "2" if self.several else "1", "--htpasswd", str(passwords), "--control", str(folder / "control"),
                "--trusted-proxy", PROXY, "--log-level", "warning",
            )  # fmt: skip
        self.until(lambda: len(self.status()["workers"]) == (2 if self.several else 0), "it to be up")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait until this is true, of a server that may not answer yet."""

        def holds() -> object:
            with contextlib.suppress(EtherwsError):
                return condition()
            return False

        until(holds, lambda: f"{what}; it said: {self.process.output}")

    def status(self) -> Values:
        """All of it."""
        return self.control.get("/status")

    def session(self, name: str) -> Values:
        """The session of a client, as soon as its process has told of it."""
        found: list[Values] = []

        def look() -> bool:
            found[:] = [each for each in self.status()["sessions"] if each["identity"] == name and each["wire"]]
            return bool(found)

        self.until(look, f"{name!r} in the status")
        return found[0]

    def events(self, kind: str, **fields: object) -> list[Values]:
        """Those of a kind that have these fields; one at least, which may be on its way."""
        found: list[Values] = []

        def look() -> bool:
            events = self.control.get("/events")["events"]
            found[:] = [each for each in events if each["kind"] == kind and fields.items() <= each.items()]
            return bool(found)

        self.until(look, f"an event {kind} {fields}")
        return found

    def ask(self, name: str, password: str | None = None, *, via: str = "", **headers: str) -> tuple[Peer, bytes]:
        """A client comes, from the address `via` if there is one; and what it is answered."""
        peer = Peer(self.host, source=via)
        login = basic(f"{name}:{name if password is None else password}".encode())
        peer.say(request(Authorization=login, **headers))
        return peer, peer.head()

    def join(self, name: str, password: str | None = None, *, via: str = "", **headers: str) -> Peer:
        """A client joins."""
        peer, head = self.ask(name, password, via=via, **headers)
        assert head.startswith(b"HTTP/1.1 101 "), head
        return peer


MODES = ["one process", "two workers", "gunicorn"]


@pytest.fixture(
    scope="module", params=[pytest.param(mode, marks=pytest.mark.xdist_group(f"observed {mode}")) for mode in MODES]
)
def running(
    request: pytest.FixtureRequest, network: None, tmp_path_factory: pytest.TempPathFactory, control_folder: str
) -> Iterator[Running]:
    """One server for all tests, which leave none of their clients behind; the last one ends it."""
    with contextlib.closing(Host()) as host:
        # Short: it has the control socket.
        folder = Path(control_folder) / request.param.replace(" ", "-")
        folder.mkdir(mode=0o755)
        yield Running(host, request.param, folder)


def closed(peer: Peer) -> tuple[int, str]:
    """The server's Close: code and reason. Hang up then."""
    while (got := peer.frame())[0] != 0x88:
        pass
    peer.close()
    return int.from_bytes(got[1][:2], "big"), got[1][2:].decode()


def leave(peer: Peer) -> None:
    """Close in order, so that no port is kept."""
    peer.say(masked(0x88, b"\x03\xe8"))
    peer.rest()
    peer.close()


def counted(values: Values) -> list[Any]:
    """What may never go down."""
    totals = values["totals"]
    numbers = [totals[way][what] for way in ("sent", "received") for what in ("bytes", "frames", "super_frames")]
    return [totals["joins"], totals["leaves"], *numbers, sum(values["refusals"].values())]


def test_two_clients_are_shown(running: Running) -> None:
    alice = running.join("alice", Etherws_Resume="a" * 22)
    bob = running.join("bob", via=PROXY, X_Forwarded_For="203.0.113.7")
    alice.say(masked(0x82, frame(100, to=BROADCAST, source=source(1))))
    while bob.frame() != (0x82, frame(100, to=BROADCAST, source=source(1))):
        pass
    running.until(lambda: running.session("alice")["macs"], "the machine behind alice")
    status, shown = running.status(), running.session("alice")
    assert (status["role"], status["state"], status["device"], status["bridge"]) == (
        "server",
        "serving",
        "ethws0",
        "br0",
    )
    assert status["listen"] == "ws://127.0.0.1:80/"
    assert {worker["answers"] for worker in status["workers"]} == ({True} if running.several else set())
    assert sum(worker["sessions"] for worker in status["workers"]) == (2 if running.several else 0)
    assert (shown["address"], shown["proxy"], shown["device"], shown["bridge"]) == ("127.0.0.1", None, "ethws0", "br0")
    assert (shown["macs"], shown["wire"], shown["reconnects"]) == ([source(1).hex(":")], 1, 0)
    assert shown["received"]["frames"] == 1
    assert (shown["worker"] in [worker["pid"] for worker in status["workers"]]) == running.several
    other = running.session("bob")
    assert (other["address"], other["proxy"], other["sent"]["frames"] >= 1) == ("203.0.113.7", PROXY, True)
    assert status["totals"]["joins"] >= 2
    assert running.control.get(f"/history?index={shown['index']}")
    # It is lost, and comes back; whoever tells of it.
    alice.reset()
    running.until(lambda: running.status()["parked"], "alice's port to be parked")
    (parked,) = running.status()["parked"]
    assert (parked["identity"], parked["device"], parked["macs"]) == ("alice", "ethws0", [source(1).hex(":")])
    assert 0 < parked["left"] <= 30
    alice = running.join("alice", Etherws_Resume="a" * 22)
    assert (running.session("alice")["reconnects"], running.session("alice")["device"]) == (1, "ethws0")
    leave(alice)
    leave(bob)
    who = {"identity": "bob", "address": "203.0.113.7", "proxy": PROXY, "device": "ethws1"}
    assert len(running.events("join", **who)) == 1
    (left,) = running.events("leave", **who)
    assert left["reason"] == "closed by the peer, code 1000 (it was stopped, or left on purpose)"
    assert left["received"] > 0


def test_a_refusal_has_a_number_that_the_client_is_told(running: Running) -> None:
    before = running.status()["refusals"].get("wrong user or password", 0)
    peer, head = running.ask("alice", "wrong")
    assert head.startswith(b"HTTP/1.1 401 ")
    number = peer.rest().decode().strip().removesuffix(")").rpartition(" ")[2]
    peer.close()
    (refused,) = running.events("refused", refusal=number)
    assert (refused["address"], refused["status"], refused["cause"]) == ("127.0.0.1", 401, "wrong user or password")
    assert refused["text"].endswith(f"(refusal {number})")
    # Of a worker, this is asked each quarter of a second at most.
    running.until(
        lambda: running.status()["refusals"].get("wrong user or password") == before + 1, "the refusal to be counted"
    )
    # What is no request at all is answered with one, too.
    peer = Peer(running.host)
    peer.say(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
    answer = peer.rest().decode()
    peer.close()
    assert answer.startswith("HTTP/1.1 400 Bad Request\r\n")
    running.events("refused", refusal=answer.strip().removesuffix(")").rpartition(" ")[2], cause="bad request")


def test_a_kick_is_for_all_workers_and_whatever_the_client_changes(running: Running) -> None:
    alice, bob = running.join("alice", Etherws_Resume="a" * 22), running.join("bob")
    running.session("alice")
    assert running.control.post("/kick", client="alice", seconds=0) == {"ended": ["127.0.0.1 as 'alice'"]}
    assert closed(alice) == (1008, "ended by the operator")
    # It was for once.
    alice = running.join("alice")
    assert running.control.post("/kick", client="alice", seconds=600)["ended"]
    assert closed(alice) == (1008, "ended by the operator")
    for number in range(6):
        peer, head = running.ask("alice", Etherws_Resume=f"{number:022d}", via=f"127.0.0.{number + 3}")
        assert head.startswith(b"HTTP/1.1 403 "), head
        assert b"\r\nRetry-After: " in head
        assert b"the operator of this server has ended" in peer.rest()
        peer.close()
    assert "alice" not in [each["identity"] for each in running.status()["parked"]]
    leave(bob)
    running.until(lambda: not running.status()["sessions"], "bob to have left")
    with pytest.raises(EtherwsError, match="no client has the identity"):
        running.control.post("/kick", client="bob", seconds=600)
    leave(running.join("bob"))
    assert running.events("leave", identity="alice", reason="ended by the operator", code=1008)
    assert running.events("kick", client="alice", seconds=600)


def test_a_hostile_name_does_no_harm(running: Running) -> None:
    peer = running.join(HOSTILE, "alice")
    assert running.session(HOSTILE)["device"] == "ethws0"
    (label,) = running.control.post("/kick", client=HOSTILE, seconds=0)["ended"]
    assert label.isprintable()
    assert len(label) < 300
    assert closed(peer)[0] == 1008
    for kind in ("join", "leave"):
        event = next(each for each in running.events(kind) if "script" in (each["identity"] or ""))
        assert event["text"].isprintable()
        assert len(event["identity"]) <= 200


def test_a_worker_that_hangs_or_dies_is_shown_so_and_nothing_goes_down(running: Running) -> None:
    if not running.several:
        pytest.skip("it has no workers")
    carol = running.join("carol")
    pid = running.session("carol")["worker"]
    before = counted(running.status())
    if running.mode == "gunicorn":
        os.kill(pid, signal.SIGKILL)
        running.until(lambda: running.status()["parked"], "carol's port to be parked")
    else:
        os.kill(pid, signal.SIGSTOP)
        silent = {"pid": pid, "sessions": 1, "answers": False}
        running.until(lambda: silent in running.status()["workers"], "its silence to be shown")
        shown = next(each for each in running.status()["sessions"] if each["identity"] == "carol")
        assert (shown["worker"], shown["device"], shown["heard"]) == (pid, "ethws0", None)
    # A worker that hangs cannot keep its client: it is ended for that.
    assert running.control.post("/kick", client="carol", seconds=600)["ended"] == ["127.0.0.1 as 'carol'"]
    running.until(lambda: pid not in [each["pid"] for each in running.status()["workers"]], "the worker to be ended")
    running.until(lambda: not running.status()["sessions"] + running.status()["parked"], "carol's port to be free")
    carol.close()
    after = counted(running.status())
    assert all(now >= then for now, then in zip(after, before, strict=True)), (before, after)
    running.until(lambda: [each["answers"] for each in running.status()["workers"]] == [True, True], "its successor")


def test_it_reads_its_files_again_and_no_tunnel_ends(running: Running) -> None:
    bob = running.join("bob")
    assert running.control.post("/reload") == {}
    bob.say(masked(0x89, b"still"))
    while (got := bob.frame()) != (0x8A, b"still"):
        assert got[0] == 0x82
    leave(bob)


def test_a_server_is_drained_and_stopped(running: Running) -> None:
    bob, dave = running.join("bob"), running.join("dave")
    running.session("bob")
    running.session("dave")
    running.control.post("/drain", seconds=0.2)
    assert {closed(bob), closed(dave)} == {(1012, "draining")}
    peer, head = running.ask("bob")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"\r\nRetry-After: " in head
    assert b"this server is draining" in peer.rest()
    peer.close()
    running.until(lambda: not running.status()["sessions"] + running.status()["parked"], "all to be gone")
    assert running.status()["state"] == "draining"
    with pytest.raises(EtherwsError, match="draining"):
        running.control.get("/readyz")
    assert running.events("leave", identity="dave", reason="draining", code=1012)
    running.control.post("/stop")
    assert running.process.ends() == 0
    # The interfaces are gone with it.
    until(lambda: set(running.host.links()) == {"lo"}, lambda: f"the interfaces to go: {running.process.output}")
    assert "Traceback" not in running.process.output
