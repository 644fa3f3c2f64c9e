"""The metrics of a server and a client with a tunnel between, as they are read from their control sockets."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.counters import ask
from tests.lab.hosts import Host, cable, until
from tests.lab.pki import Certificate


@pytest.fixture(scope="module")
def controls(network: None, certificate: Certificate, control_folder: str) -> Iterator[dict[str, Path]]:
    """The control socket of each role. The two have carried some pings."""
    found = {role: Path(control_folder, f"metrics-{role}") for role in ("server", "client")}
    server, client = Host(), Host()
    try:
        cable(server, client, "192.0.2.1/24", "192.0.2.2/24")
        tls = ("--keyfile", str(certificate.key), "--certfile", str(certificate.cert))
        options = ("--foreground", "--ping-interval", "0.2", "--control")
        server.etherws("server", "--monitor-clients", *tls, *options, str(found["server"])).says("listening on wss://")
        uri = ("--uri", "wss://192.0.2.1/", "--cacert", str(certificate.cert))
        client.etherws("client", *uri, *options, str(found["client"])).says("connected to wss")
        for host, address in ((server, "10.0.0.1/24"), (client, "10.0.0.2/24")):
            host.add_address("ethws0", address)
        assert client.run("ping", "-c", "3", "-i", "0.05", "10.0.0.1").ends() == 0
        until(lambda: all(answered(control) for control in found.values()), "a pong at both ends")
        yield found
    finally:
        client.close()
        server.close()


def answered(control: Path) -> bool:
    """Whether a pong has come."""
    return "etherws_round_trip_seconds_count 0.0" not in text_of(control)


def text_of(control: Path) -> str:
    """The metrics."""
    return ask(control, "/metrics").decode()


def test_a_tunnel_is_counted_at_both_ends(controls: dict[str, Path]) -> None:
    for role in controls:
        lines = dict(line.rsplit(" ", 1) for line in text_of(controls[role]).splitlines() if line[0] != "#")
        assert lines[f'etherws_info{{name="ethws0",role="{role}",version="{version(lines)}"}}'] == "1.0"
        assert lines["etherws_sessions"] == lines["etherws_joins_total"] == lines["etherws_ready"] == "1.0"
        for direction in ("sent", "received"):
            assert float(lines[f'etherws_frames_total{{direction="{direction}"}}']) >= 3
            assert float(lines[f'etherws_carried_bytes_total{{direction="{direction}"}}']) > 1000
        (session,) = json.loads(ask(controls[role], "/status"))["sessions"]
        assert session["tls"]["version"] == "TLSv1.3"
        assert {"v2", "mtu", "padding"} <= set(session["features"])
        assert session["wire"] == 2
        if role == "server":
            assert float(lines["etherws_certificate_expiry_timestamp_seconds"]) > 1e9
            assert lines['etherws_events_total{kind="join"}'] == "1.0"
            assert lines['etherws_client_frames_total{device="ethws0",direction="received",identity=""}'] != "0.0"
        else:
            assert lines["etherws_reconnects_total"] == "0.0"
            assert lines['etherws_events_total{kind="connect"}'] == "1.0"


def version(lines: dict[str, str]) -> str:
    """The version in the metrics."""
    (info,) = (name for name in lines if name.startswith("etherws_info{"))
    return info.split('version="')[1].partition('"')[0]


@pytest.mark.packages
def test_promtool_finds_nothing_wrong_with_them(controls: dict[str, Path]) -> None:
    if not (promtool := shutil.which("promtool")):
        pytest.skip("promtool is missing; Debian has it in the package prometheus")
    for control in controls.values():
        done = subprocess.run(
            [promtool, "check", "metrics"], input=text_of(control), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
