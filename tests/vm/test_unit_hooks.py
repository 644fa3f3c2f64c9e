"""Programs of --up, --down and --change under the units: as the unit's user, with no more rights than it is given."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.hosts import until
from tests.lab.units import Unit, links

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("machine")]

#: Of a DynamicUser, with CAP_NET_ADMIN or nothing.
PROGRAM = """#!/bin/sh
echo "$ETHERWS_HOOK $ETHERWS_REASON: user $(id -u) has $(sed -n 's/^CapEff:.//p' /proc/self/status) on $ETHERWS_DEVICE"
touch /etc/by-a-hook || echo "cannot write to /etc"
ip link set dev "$ETHERWS_DEVICE" alias "of $ETHERWS_ROLE" || echo "cannot change $ETHERWS_DEVICE"
[ "$ETHERWS_HOOK" != down ] || sleep 1000
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the units can see programs: neither in /tmp nor in a home directory."""
    path = Path("/etc/etherws-test-hooks")
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


def test_a_program_has_the_units_user_and_what_it_is_given(units: tuple[Unit, Unit], folder: Path) -> None:
    server, client = units
    program, policy = folder / "program", folder / "policy.toml"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    # Root's own, which the unit gets as a copy.
    policy.write_text(f'[default]\nchange = "{program}"\n')
    policy.chmod(0o600)
    server.options(address="127.0.0.1", bridge="br0", up=str(program), hook_net_admin="1", policy=str(policy))
    client.options(uri="ws://127.0.0.1/", device="ethws1", bridge="br1", wait="1h", up=str(program), down=str(program))
    server.do("start")
    client.do("start")
    server.says("--up (connected) for ethws0: up connected: user 6")
    client.says("--up (connected) for ethws1: up connected: user 6")
    server.says("has 0000000000001000 on ethws0")
    client.says("has 0000000000000000 on ethws1")
    client.says("cannot change ethws1")
    for unit in units:
        unit.says("cannot write to /etc")
    until(lambda: links()["ethws0"].get("ifalias") == "of server", lambda: str(links()["ethws0"]))
    assert "ifalias" not in links()["ethws1"]
    # A restart is no end: what is up stays up, and the policy's program runs for the change.
    server.do("restart")
    server.says("--change (connected) for ethws0: change connected")
    assert not any("--up" in line for line in server.log())
    # A program that hangs does not hold up the end of the unit.
    client.do("stop")
    client.says("--down (stopped) for ethws1: down stopped")
    client.says("did not end in time, and was ended with all that it had started")
    assert client.property("Result") == "success"
    assert "ethws1" not in links()
