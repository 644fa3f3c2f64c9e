"""The two doors: opened while there are privileges, and what the log says if one cannot be."""

from __future__ import annotations

import logging
import socket
from pathlib import Path
from typing import Any

import pytest

from etherws.errors import ListenError
from etherws.monitoring import Monitoring
from etherws.observe.events import Events
from etherws.observe.serve import Observation
from tests.lab.doors import doors
from tests.lab.subjects import FakeServer


def observation(**settings: Any) -> Observation:
    """Of a server that is none."""
    return Observation(FakeServer(), Events(), Monitoring(**settings), "server", "ethws0")


def test_without_its_control_socket_all_else_goes_on(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with doors(folder) as first, doors(folder) as second:
        assert second.observation.path == ""
        assert "there is no control socket, and all else goes on: cannot listen on unix:" in caplog.text
        assert "another process answers there; stop it, or choose another path" in caplog.text
        assert second.ask("GET /healthz", monitor=True).status == 200
        second.observation.close()
        # It is the other one's.
        assert first.ask("GET /healthz").status == 200
    assert not (folder / "control").exists()


def test_there_may_be_no_doors() -> None:
    found = observation(control="")
    found.open()
    found.start()
    assert (found.path, found.address, found.servers) == ("", "", [])
    found.close()
    found.close()


def test_a_port_that_is_taken_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = observation(control=str(folder / "control"), monitor=str(port))
        with pytest.raises(ListenError, match=rf"--monitor 127.0.0.1:{port}: port {port} is taken by .*"):
            found.open()
        found.close()
        assert not (folder / "control").exists()
        # An image that takes over has sessions to lose.
        found.open(needed=False)
        assert f"port {port} is taken" in caplog.text
        found.start()
        assert found.path
        found.close()


@pytest.mark.parametrize(
    "monitor",
    ["nowhere.invalid:1", "[fe80::1%nowhere]:1"],
)
def test_an_address_that_cannot_be_had_is_said(monitor: str) -> None:
    with pytest.raises(ListenError, match=r"cannot listen on --monitor .*name an address of this machine"):
        observation(control="", monitor=monitor).open()


@pytest.mark.parametrize(
    ("monitor", "address", "exposed"),
    [
        ("0", "127.0.0.1", False),
        ("localhost:0", "localhost", False),
        ("[::1]:0", "[::1]", False),
        ("0.0.0.0:0", "127.0.0.1", True),
        ("*:0", "127.0.0.1", True),
        ("[::]:0", "[::1]", True),
    ],
)
def test_who_reaches_it_is_known(
    folder: Path, monitor: str, address: str, exposed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with doors(folder, monitor=monitor) as opened:
        assert opened.observation.address == f"{address}:{opened.port}"
        assert opened.ask("POST /page").json["address"].startswith(f"http://{address}:{opened.port}/login?token=")
        assert ("is without TLS: anyone on the path can read what is shown" in caplog.text) is exposed
        assert (f"ssh -L {opened.port}:127.0.0.1:{opened.port} HOST" in caplog.text) is exposed


def test_a_scraper_reads_with_a_token_of_the_file(folder: Path) -> None:
    (tokens := folder / "tokens").write_text("a-token-of-a-scraper\n")
    with doors(folder, monitor_token_file=str(tokens)) as opened:
        # user:a-token-of-a-scraper
        header = "Basic dXNlcjphLXRva2VuLW9mLWEtc2NyYXBlcg=="
        assert opened.ask("GET /status", monitor=True).headers["www-authenticate"].startswith("Basic realm=")
        assert opened.ask("GET /status", monitor=True, Authorization=header).status == 200
        order = {"Content-Type": "application/json", "Sec-Fetch-Site": "same-origin"}
        assert opened.ask("POST /stop", b"{}", monitor=True, Authorization=header, **order).status == 403
        tokens.write_text("another-token-by-now\n")
        assert opened.ask("GET /status", monitor=True, Authorization=header).status == 401
        assert opened.subject.told == []


def test_the_name_of_monitor_is_a_host(folder: Path) -> None:
    with doors(folder, monitor="localhost:0") as opened:
        assert opened.ask("GET /healthz", monitor=True, Host="evil.example").status == 421
        assert opened.ask("GET /healthz", monitor=True, Host=f"localhost:{opened.port}").status == 200
        assert opened.ask("GET /healthz", Host="evil.example").status == 200
        assert opened.ask("GET /healthz", monitor=True, X_Forwarded_For="192.0.2.1").status == 401
        assert logging.getLogger("etherws").handlers
