"""All of one session, of a parked port, and of a client."""

from __future__ import annotations

import pytest

from etherws.cli.operate.cells import harmless
from etherws.cli.operate.status_details import client_lines, parked_lines, session_lines
from tests.lab.statuses import client_status, server_status


def test_a_client_of_a_server() -> None:
    status = server_status(6, 0)
    session, now = status["sessions"][5], status["now"]
    session["policy"] |= {"macs": ["02:00:00:00:00:01", "02:00:00:00:00:02"], "isolated": True}
    session |= {"macs": [f"02:00:00:00:00:{n:02x}" for n in range(20)], "macs_more": 5, "worker": 12, "since": now - 80}
    session["queue"] = {"delay": 0.3, "packets": 3, "bytes": 4500}
    lines = [line.strip() for line in session_lines(session, now)]
    assert lines[:3] == ["client client-5", "reconnects  2", lines[2]]
    assert lines[2].startswith("!           packets wait 300 ms")
    for expected in (
        "address     203.0.113.5 by the proxy 198.51.100.1",
        "heard       0.4 s ago",
        "round trip  72 ms; under load 30 ms",
        "queue       300 ms; 3 packets wait, 4.5 kB",
        "dropped     1 queue late",
        "wire        version 2",
        "features    v2, mtu",
        "TLS         TLSv1.3, TLS_AES_256_GCM_SHA384",
        "congestion  bbr",
        "worker      12",
        "interface   ethws5 in br0, index 15",
        "policy      rate_up 10000000, isolated yes, macs 02:00:00:00:00:01 02:00:00:00:00:02",
    ):
        assert expected in lines
    assert lines[4].startswith("connected   1 min 20 s, since ")
    assert any(line.startswith("sent        960 kbit/s now; ") for line in lines)
    assert any(line.endswith("02:00:00:00:00:0f and 9 more") for line in lines)


def test_the_connections_of_a_link() -> None:
    session = server_status(1)["sessions"][0]
    rates = {"sent": 2e6, "received": 1e6}
    session["connections"] = [
        {"member": 0, "worker": 12, "since": 100.0, "heard": 0.4, "round_trip": 0.02, "rates": rates},
        {"member": 3, "worker": None, "since": None, "heard": None, "round_trip": None, "rates": None},
    ]
    lines = [line.strip() for line in session_lines(session, 160.0)]
    assert [line for line in lines if line.startswith("conn. ")] == [
        "conn. 0     round trip 20 ms, heard 0.4 s ago, 2 Mbit/s sent, 1 Mbit/s received; for 1 min, worker 12",
        "conn. 3     round trip -",
    ]


def test_what_is_not_known_is_left_out() -> None:
    session = server_status(1)["sessions"][0]
    session |= {"heard": None, "wire": None, "tls": None, "congestion": None, "features": [], "proxy": None}
    session |= {"loaded_round_trip": None, "drops": {}, "macs": [], "bridge": None, "policy": {"rate_up": None}}
    session |= {"reconnects": 0, "round_trip": None}
    lines = [line.strip() for line in session_lines(session, session["since"])]
    for expected in (
        "round trip  -",
        "dropped     nothing",
        "wire        -",
        "TLS         no",
        "interface   ethws0, index 10",
        "machines    none seen",
        "policy      nothing is forbidden",
    ):
        assert expected in lines
    assert not any(line.startswith(("heard", "congestion", "features", "worker", "reconnects")) for line in lines)


def test_a_port_that_is_parked() -> None:
    status = server_status(0, 1, now=100.0)
    status["parked"][0] |= {"since": 90.0, "left": 17.6, "policy": None}
    assert [*parked_lines(status["parked"][0], 100.0)] == [
        "client lost-0: lost 10 s ago",
        "  removed in  18 s",
        "  address     192.0.2.9",
        "  interface   ethws500 in br0, index 900",
        "  machines    02:00:00:00:ff:01",
    ]


def test_a_client_that_is_connected() -> None:
    status = client_status(reconnects=2, last_error="lost wss://host:443: closed", proxy="http://proxy:3128")
    status["link"]["last_error_at"] = status["now"] - 30
    lines = [line.strip() for line in client_lines(status)]
    assert lines[0] == "client lan: connected to wss://host:443"
    assert lines[1:4] == [
        "last error  lost wss://host:443: closed (30 s ago)",
        "proxy       http://proxy:3128",
        "reconnects  2",
    ]
    assert "address     203.0.113.0" in lines
    assert "interface   ethws0 in br0, index 10" in lines
    status["sessions"][0]["address"] = None
    assert not any(line.strip().startswith("address") for line in client_lines(status))


@pytest.mark.parametrize(("bridge", "where"), [("br0", "ethws0 in br0"), (None, "ethws0")])
def test_a_client_that_is_not_connected(bridge: str | None, where: str) -> None:
    status = client_status(connected=False, attempts=7, next_attempt=4.2, last_error="no answer")
    status["link"]["last_error_at"] = status["now"] - 3
    status["bridge"] = bridge
    lines = [line.strip() for line in client_lines(status)]
    assert lines[:4] == [
        "client lan: waiting; not connected to wss://host:443",
        "last error  no answer (3 s ago)",
        "attempts    7 so far; the next one in 4.2 s",
        "reconnects  0",
    ]
    assert lines[-1] == f"interface   {where}"
    status["link"] |= {"next_attempt": None, "last_error": None}
    assert "attempts    7 so far" in [line.strip() for line in client_lines(status)]


def test_hostile_words_of_a_server_are_harmless() -> None:
    status = client_status(last_error="\x1b[2J\u202eabc", last_error_at=0.0)
    status["name"], status["version"] = "\x9b", "\x00"
    session = status["sessions"][0]
    session |= {"wire": "\x1b", "features": ["\r"], "tls": {"version": "\x07", "cipher": "\n"}, "congestion": "\x1b"}
    session["policy"] = {"\x1b": "\x1b", "x": ["\x1b"]}
    session["drops"] = {"\x1b[31m": 1}
    assert all(harmless(line) == line for line in client_lines(status))
