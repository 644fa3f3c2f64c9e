"""etherws status and events: what is printed, for people and for programs, once and again and again."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from etherws.cli.commands import main
from etherws.cli.operate import control, watching
from tests.lab.control import Fake, fake, foreign
from tests.lab.statuses import client_status
from tests.lab.subjects import FakeServer


def run(*arguments: str) -> Result:
    """A command, to its end."""
    return CliRunner().invoke(main, arguments)


class Client(FakeServer):
    """A client whose link is as it was said."""

    role = "client"

    def __init__(self, **link: Any) -> None:
        super().__init__(1, 0)
        self.status = client_status(**link)

    def overview(self) -> dict[str, Any]:
        return {name: value for name, value in self.status.items() if name not in ("sessions", "parked")}

    def sessions(self) -> Any:
        yield from self.status["sessions"]


def rounds(monkeypatch: pytest.MonkeyPatch, *between: Callable[[], object]) -> None:
    """Have each of these happen in place of a wait, and then Ctrl-C."""
    left = list(between)

    def sleep(_: float) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    monkeypatch.setattr(time, "sleep", sleep)


def test_all_that_runs_is_shown(machine: Path) -> None:
    with fake(machine / "server-lan" / "control", FakeServer(2)), fake(machine / "client-x" / "control", Client()):
        done = run("status")
        assert done.exit_code == 0
        blocks = done.stdout.split("\n\n")
        assert blocks[0].startswith("client lan: connected to wss://host:443\n")
        assert blocks[1].startswith("server ethws0: serving, 2 clients, 1 parked, for ")
        assert blocks[2].startswith("CLIENT ")
        assert blocks[3].startswith("PARKED ")
        # In a pipe there is no terminal to be as wide as.
        assert "CONGESTION" in blocks[2]
        lines = [json.loads(line) for line in run("status", "--json").stdout.splitlines()]
        assert [(each["role"], len(each["sessions"])) for each in lines] == [("client", 1), ("server", 2)]
        assert run("status", "lan").stdout.startswith("server ethws0")


def test_one_client_is_shown_with_all_that_is_known(machine: Path) -> None:
    with fake(machine / "server-lan" / "control", FakeServer(3, 1)):
        for name in ("client-1", "203.0.113.1", "ethws1"):
            assert run("status", "--client", name).stdout.startswith("client client-1\n  reconnects  1\n")
        assert run("status", "lan", "--client", "192.0.2.9").stdout.startswith("client lost-0: lost ")
        found = json.loads(run("status", "--client", "client-2", "--json").stdout)
        assert (found["identity"], found["index"]) == ("client-2", 12)
        done = run("status", "--client", "nobody\x1b[m")
        assert (done.exit_code, done.stdout) == (1, "")
        assert "no client has the identity, the address or the interface 'nobody?[m'" in done.stderr


def test_two_clients_of_one_address_are_both_shown(machine: Path) -> None:
    subject = FakeServer(251, 0)
    with fake(machine / "server-lan" / "control", subject):
        blocks = run("status", "--client", "203.0.113.0").stdout.split("\n\n")
        assert [block.splitlines()[0] for block in blocks] == ["client 203.0.113.0", "client client-250"]


def test_what_cannot_be_shown_is_said_beside_what_can(machine: Path) -> None:
    (machine / "server-dead").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(machine / "server-dead" / "control"))
    done = run("status")
    assert done.exit_code == 69
    assert "server-dead does not run: nobody listens at " in done.stderr
    with fake(machine / "server-lan" / "control", FakeServer(0, 0)):
        done = run("status")
        assert done.exit_code == 0
        assert "server ethws0: serving" in done.stdout
        assert "etherws: server-dead does not run" in done.stderr


def test_nothing_runs(machine: Path) -> None:
    for command in ("status", "events", "stop", "reload", "drain", "page"):
        done = run(command)
        assert done.exit_code == 69
        assert "neither a server nor a client of etherws runs on this machine" in done.stderr
    assert run("status", "--watch").exit_code == 69
    done = run("status", "lan", "--control", "/x")
    assert (done.exit_code, "leave NAME out" in done.stderr) == (2, True)


MALFORMED: dict[str, object] = {
    "nothing": {},
    "sessions": {**client_status(), "role": "server", "sessions": 5},
    "numbers": {**client_status(), "started": "\x1b", "now": "x"},
    "endless": {**client_status(), "now": 1e400},
    "a role": {"role": "neither"},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_status_of_another_form_is_no_traceback(machine: Path, case: str) -> None:
    body = json.dumps(MALFORMED[case]).encode()

    def talk(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + body)

    with foreign(machine / "server-lan" / "control", talk):
        for arguments in (["status"], ["status", "--json"], ["events"]):
            done = run(*arguments)
            assert done.exit_code == 1, done.output
            assert "not understood; is it of another version?" in done.stderr or "status is" in done.stderr
            assert done.exception is None or isinstance(done.exception, SystemExit)


def test_hostile_words_reach_no_terminal(machine: Path) -> None:
    class Hostile(FakeServer):
        def session(self, number: int) -> dict[str, Any]:
            bad = "\x1b]0;x\x07\x9b2J\r\n\u202e\u05d0" + "<b>" * 3000
            return {**super().session(number), "identity": bad, "device": bad, "macs": [bad], "features": [bad]}

    with fake(machine / "server-lan" / "control", Hostile(3)) as process:
        process.add("leave\x1b", "client \x1b[2J left\r\nforged line \u202e", "info\x07")
        for arguments in (["status"], ["status", "--json"], ["status", "--client", "203.0.113.1"], ["events"]):
            done = run(*arguments)
            assert done.exit_code == 0
            assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & set(done.output), arguments
        # What follows a line's end in the text is indented.
        assert "    forged line ?\n" in run("events").stdout


def test_watch_goes_on_when_the_process_is_started_again(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = machine / "server-lan" / "control"
    with ExitStack() as stack:
        first = stack.enter_context(ExitStack())
        first.enter_context(fake(path, FakeServer(1, 0)))
        rounds(monkeypatch, first.close, lambda: stack.enter_context(fake(path, FakeServer(2, 0))))
        done = run("status", "lan", "--watch")
    assert done.exit_code == 0
    said = [line for line in done.stdout.splitlines() if line.startswith(("server", "etherws"))]
    assert [line.partition(", for")[0] for line in said] == [
        "server ethws0: serving, 1 client, 0 parked",
        "etherws: nothing called lan runs on this machine",
        "server ethws0: serving, 2 clients, 0 parked",
    ]


def test_watch_as_json_has_a_line_for_each_look(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds(monkeypatch, lambda: None)
    with fake(machine / "server-lan" / "control", FakeServer(2)):
        lines = run("status", "--watch", "--json").stdout.splitlines()
        assert [len(json.loads(line)["sessions"]) for line in lines] == [2, 2]
        # Who is not there, may come.
        rounds(monkeypatch)
        assert "no client has" in run("status", "--watch", "--client", "x").stdout


def test_events_are_printed_with_what_they_are_about(machine: Path) -> None:
    with fake(machine / "server-lan" / "control", FakeServer()) as process:
        process.add("join", "203.0.113.5 joined on ethws1", address="203.0.113.5")
        process.add("other", "unexpected error\nTraceback\n  line", "error")
        lines = run("events", "lan").stdout.splitlines()
        assert [line.partition(" ")[2].partition(" ")[2] for line in lines[:2]] == [
            "info    join    203.0.113.5 joined on ethws1",
            "error   other   unexpected error",
        ]
        assert lines[2:] == ["    Traceback", "      line"]
        values = [json.loads(line) for line in run("events", "--json").stdout.splitlines()]
        assert [(each["kind"], each.get("address")) for each in values] == [("join", "203.0.113.5"), ("other", None)]


def test_followed_events_go_on_after_a_restart(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = machine / "server-lan" / "control"
    show = watching._event_text
    with ExitStack() as stack:
        process = Fake(path, FakeServer(), clock=lambda: 1e9)
        process.add("join", "one")

        def shown(values: dict[str, Any]) -> str:
            if values["text"] == "one":
                process.close()
            elif values["text"] == "three":
                raise KeyboardInterrupt
            return show(values)

        def again() -> None:
            second = stack.enter_context(closing(Fake(path, FakeServer(), clock=lambda: 1e9 + 1)))
            second.add("join", "two")
            second.add("join", "three")

        monkeypatch.setattr(watching, "_event_text", shown)
        rounds(monkeypatch, lambda: None, again)
        done = run("events", "lan", "--follow")
    assert done.exit_code == 0
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["one", "two"]
    assert done.stderr.splitlines() == [
        "etherws: server-lan has ended; waiting for it",
        "etherws: server-lan answers again",
    ]


def test_following_what_does_not_answer_is_an_error(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "SILENCE", 0.05)
    with foreign(machine / "server-lan" / "control", lambda connection: connection.recv(4096) and connection.recv(1)):
        assert run("events", "--follow").exit_code == 75
