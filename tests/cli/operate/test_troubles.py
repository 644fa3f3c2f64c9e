"""What is said to be wrong: who waits, who is silent, whose path queues."""

from __future__ import annotations

from etherws.cli.operate import troubles
from etherws.cli.operate.status_table import label
from tests.lab.statuses import server_status


def test_nothing_is_wrong() -> None:
    status = server_status()
    assert not [*troubles.of_server(status, label)]
    assert not [*troubles.of_session(status["sessions"][0])]


def test_each_kind_of_trouble_names_the_worst_first() -> None:
    status = server_status(9, state="draining")
    for number, each in enumerate(status["sessions"]):
        each |= {"identity": f"c{number}", "heard": 25.0 + number, "round_trip": 0.02, "loaded_round_trip": 0.4}
        each["queue"]["delay"] = 0.1 + number / 10
    assert [*troubles.of_server(status, label)] == [
        "  ! packets wait long: the path is full: c8 900 ms, c7 800 ms, c6 700 ms, c5 600 ms, c4 500 ms and 4 more",
        "  ! round trip long under load: something on the path queues: c0 400 ms, c1 400 ms, c2 400 ms, c3 400 ms,"
        " c4 400 ms and 4 more",
        "  ! silent: c8 33 s, c7 32 s, c6 31 s, c5 30 s, c4 29 s and 4 more",
        "  ! it is draining: nobody may join",
    ]
    assert [*troubles.of_session(status["sessions"][1])] == [
        "packets wait 200 ms: the path is full, or its rate is limited",
        "round trip 400 ms under load, else 20 ms: something on the path queues",
        "nothing was heard for 26 s: is the path cut?",
    ]


def test_what_is_wrong_with_the_lan_comes_first_and_cannot_control_the_terminal() -> None:
    status = server_status(1, state="draining")
    status["warnings"] = ["br0 is down", "\x1b[31mred"]
    first, second, last = troubles.of_server(status, label)
    assert first == "  ! br0 is down"
    assert second.startswith("  ! ")
    assert "\x1b" not in second
    assert "draining" in last


def test_what_is_not_known_is_no_trouble() -> None:
    status = server_status(1)
    status["sessions"][0] |= {"heard": None, "round_trip": None, "loaded_round_trip": None}
    assert not [*troubles.of_server(status, label)]
    assert not [*troubles.of_session(status["sessions"][0])]


def test_one_of_several_connections_may_be_silent() -> None:
    status = server_status(2)
    session = status["sessions"][1]
    session |= {"identity": "c1", "heard": 0.5}
    session["connections"] = [{"member": 0, "heard": 0.5}, {"member": 1, "heard": 27.0}, {"member": 2, "heard": None}]
    assert [*troubles.of_server(status, label)] == ["  ! silent: c1 27 s"]
    assert [*troubles.of_session(session)] == ["connection 1: nothing was heard for 27 s: is its path cut?"]
    # If nothing comes by any, one line is enough.
    session["heard"] = 26.0
    assert [*troubles.of_session(session)] == ["nothing was heard for 26 s: is the path cut?"]
