"""A server as ``etherws status`` shows it: the summary, and a table that is as wide as its terminal."""

from __future__ import annotations

import pytest

from etherws.cli.operate.cells import harmless, width
from etherws.cli.operate.status_table import server_lines
from tests.lab.statuses import server_status


def test_the_summary_of_a_server() -> None:
    status = server_status(2, 1, name="lan", started=0.0, now=7500.0)
    lines = [*server_lines(status, None)]
    assert lines[0] == "server lan: serving, 2 clients, 1 parked, for 2 h 5 min"
    assert lines[1] == "  wss://*:443/, ethws0 in br0, version 2.0, process 4711"
    assert lines[2].startswith("  sends 480 kbit/s, receives 240 kbit/s; so far ")
    assert lines[3:8] == [
        "  round trips: half up to 25 ms, 99 % up to 500 ms",
        "  round trips under load: half up to 500 ms, 99 % up to 500 ms",
        "  waits in the queue: half up to 20 ms, 99 % up to 500 ms",
        "  dropped: 12 address not allowed, 3 queue late",
        "  refused: 2 wrong password",
    ]
    assert lines[8] == ""


def test_a_server_without_clients_and_with_workers() -> None:
    workers = [{"pid": 7, "sessions": 0, "answers": True}, {"pid": 8, "sessions": 0, "answers": False}]
    status = server_status(0, 0, bridge=None, refusals={}, workers=workers)
    status["totals"]["drops"] = {}
    slow = status["totals"]["round_trip"]
    slow["counts"] = [0] * (len(slow["counts"]) - 1) + [1]
    del status["totals"]["loaded_round_trip"]
    lines = [*server_lines(status, None)]
    assert lines[0].startswith("server ethws0: serving, 0 clients, 0 parked, for ")
    assert lines[1] == "  wss://*:443/, ethws0, version 2.0, process 4711"
    assert lines[3] == "  round trips: half over 2.5 s, 99 % over 2.5 s"
    assert lines[5:] == ["  workers: 7 has 0, 8 has 0; without an answer: 8"]
    status["workers"] = workers[:1]
    assert [*server_lines(status, None)][-1] == "  workers: 7 has 0"


@pytest.mark.parametrize("columns", [1, 20, 40, 80, 132, 250])
def test_no_line_of_the_table_is_wider_than_the_terminal(columns: int) -> None:
    lines = [*server_lines(server_status(30, 3), columns)]
    table = lines[lines.index("") + 1 :]
    assert all(width(line) <= columns for line in table)
    assert [line for line in lines if line.startswith("CLIENT"[:columns])] or columns == 1
    if columns == 80:
        # What tells why something is slow.
        assert table[0].split() == ["CLIENT", "ADDRESS", "DEVICE", "UP", "RTT", "LOADED", "QUEUE", "DROPS"]


def test_a_column_in_which_nothing_is_known_is_left_out() -> None:
    status = server_status(1)
    status["sessions"][0] |= {"round_trip": None, "tls": None, "worker": 4712, "macs_more": 6}
    heading, row = [*server_lines(status, None)][-5:-3]
    assert "RTT" not in heading.split()
    assert "TLS" not in heading.split()
    assert heading.split()[-2:] == ["WORKER", "CONGESTION"]
    assert row.split()[-2:] == ["4712", "bbr"]
    assert heading.split()[11:] == row.split()[-1:] or "7" in row.split()


def test_names_are_in_the_order_in_which_people_count_or_by_traffic() -> None:
    status = server_status(12, 0)
    for number, each in enumerate(status["sessions"]):
        each["identity"] = f"Branch{number}" if number % 2 else f"branch{number}"
        each["rates"] = {"sent": float(number), "received": 0.0}

    def names(*, busiest: bool) -> list[str]:
        lines = [*server_lines(status, None, busiest=busiest)]
        return [line.split()[0].lower() for line in lines[lines.index("") + 2 :]]

    assert names(busiest=False) == [f"branch{number}" for number in range(12)]
    assert names(busiest=True) == [f"branch{number}" for number in reversed(range(12))]


def test_hostile_words_stay_in_their_cells() -> None:
    status = server_status(4, 1, name="\x1b[2J", listen="wss://\r\n/")
    for each, name in zip(
        status["sessions"], ("\x1b]0;title\x07", "<b>&", "\u05d0\u202e1", "\u65e5" * 10_000), strict=True
    ):
        each |= {"identity": name, "device": "\u65e5\u672c", "proxy": "x\x9b31m"}
    status["totals"]["drops"]["\x1b[31m"] = 1
    lines = [*server_lines(status, None)]
    assert all(harmless(line) == line for line in lines)
    table = lines[lines.index("") + 1 : -3]
    ends = {width(line[: line.index("ethws") if "ethws" in line else line.index("203.")]) for line in table[1:]}
    assert len(ends) == 1


def test_a_thousand_clients_are_counted_first() -> None:
    lines = [*server_lines(server_status(1000, 0), 80)]
    assert "1,000 clients, 0 parked" in lines[0]
    assert len(lines) == lines.index("") + 1002


def test_a_client_with_several_connections_shows_how_many_and_at_which_workers() -> None:
    status = server_status(2, 0)
    for session in status["sessions"]:
        session |= {"members": 1, "worker": 7}
    heading, *_ = [*server_lines(status, None)][-3:]
    assert "WORKER" in heading.split()
    assert "CONNS" not in heading.split()
    status["sessions"][0] |= {"members": 3, "connections": [{"worker": 8}, {"worker": 7}, {"worker": 8}]}
    heading, *rows = [*server_lines(status, None)][-3:]
    ends = [heading.index(name) + len(name) for name in ("CONNS", "WORKER")]
    assert [[row[:end].split("  ")[-1].strip() for end in ends] for row in rows] == [["3", "8 7"], ["", "7"]]
