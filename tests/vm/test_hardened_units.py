"""The units under systemd: what they may do, and that they work all the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from tests.lab import typed
from tests.lab.hosts import until
from tests.lab.pages import commands
from tests.lab.pki import Authority
from tests.lab.units import CONTRIB, INSTALLED, Unit, run

pytestmark = [pytest.mark.vm, pytest.mark.xdist_group("machine")]

#: Prints the serial of the certificate that the server shows.
SHOWN = """
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
with socket.create_connection(("127.0.0.1", 443)) as sock:
    with context.wrap_socket(sock, server_hostname="127.0.0.1") as tls:
        print(tls.getpeercert()["serialNumber"])
"""

NET_ADMIN = "0000000000001000"


def status(pid: str) -> dict[str, list[str]]:
    """What the kernel says of a process."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    return {line.partition(":")[0]: line.partition(":")[2].split() for line in lines}


def pid_of(unit: Unit) -> str:
    return unit.property("MainPID")


@pytest.mark.parametrize("role", ["server", "client"])
def test_the_exposure_is_low(role: str) -> None:
    run("systemd-analyze", "security", "--offline=true", "--threshold=15", str(CONTRIB / f"etherws-{role}@.service"))


def test_each_has_net_admin_alone_and_a_user_of_its_own(units: tuple[Unit, Unit]) -> None:
    server, client = units
    server.do("start")
    client.do("start")
    for unit in units:
        for task in Path(f"/proc/{pid_of(unit)}/task").iterdir():
            try:
                found = status(f"{pid_of(unit)}/task/{task.name}")
            except (FileNotFoundError, ProcessLookupError):
                # This thread has ended.
                continue
            assert found["CapPrm"] == found["CapEff"] == found["CapBnd"] == found["CapAmb"] == [NET_ADMIN]
            assert found["NoNewPrivs"] == ["1"]
            assert found["Seccomp"] == ["2"]
            assert 61184 <= int(found["Uid"][0]) < 65520
    assert status(pid_of(server))["Uid"] != status(pid_of(client))["Uid"]
    # Root has opened port 80 and the packet sockets.
    text = "".join(server.log() + client.log())
    assert "Permission denied" not in text
    assert "not permitted" not in text
    for name in ("ethws0", "br0", "ethws1", "br1"):
        # /proc/sys is read-only for the units, but for this.
        path = f"/proc/sys/net/ipv6/conf/{name}/accept_ra"
        assert run("cat", path).strip() == "0", path
    before = server.property("NRestarts")
    server.do("restart")
    until(lambda: sum("connected to ws" in line for line in client.log()) == 2, lambda: str(client.log()))
    assert server.property("NRestarts") == before


def test_a_renewed_certificate_arrives_without_a_restart(units: tuple[Unit, Unit], tmp_path: Path) -> None:
    server, client = units
    tree = Path("/etc/letsencrypt-test")
    for folder in (tree / "archive/lan", tree / "live/lan"):
        folder.mkdir(parents=True)
    (tree / "archive").chmod(0o700)
    authority = Authority(tmp_path)
    ca = tree / "ca.pem"
    ca.write_bytes(authority.cert.read_bytes())

    def renew(number: int) -> int:
        """As certbot does: new files, and links to them. Returns the serial."""
        made = authority.issue()
        for kind, path in (("fullchain", made.cert), ("privkey", made.key)):
            target = tree / f"archive/lan/{kind}{number}.pem"
            target.write_bytes(path.read_bytes())
            target.chmod(0o600)
            link = tree / f"live/lan/{kind}.pem"
            link.unlink(missing_ok=True)
            link.symlink_to(f"../../archive/lan/{kind}{number}.pem")
        return x509.load_pem_x509_certificate(made.cert.read_bytes()).serial_number

    def shown() -> int:
        return int(run(sys.executable, "-c", SHOWN, str(ca)), 16)

    try:
        first = renew(1)
        live = tree / "live/lan"
        server.options(
            address="127.0.0.1", bridge="br0", certfile=str(live / "fullchain.pem"), keyfile=str(live / "privkey.pem")
        )
        client.options(uri="wss://127.0.0.1/", device="ethws1", bridge="br1", cacert=str(ca), sni="localhost")
        server.do("start")
        client.do("start")
        client.says("connected to wss://127.0.0.1:443")
        assert shown() == first
        server_pid, sessions = pid_of(server), len([line for line in client.log() if "connected to" in line])
        second = renew(2)
        subprocess.run(["sh", str(CONTRIB / "certbot-deploy-hook")], check=True)
        until(lambda: shown() == second, "the new certificate")
        assert pid_of(server) == server_pid
        assert len([line for line in client.log() if "connected to" in line]) == sessions
        assert not any("lost" in line for line in client.log())
        # The unit's user sees the copies, and root's files it does not.
        user = status(server_pid)["Uid"][0]
        copies = Path(f"/run/{server.name.removesuffix('.service').replace('@', '-')}.files")
        assert all(os.stat(path).st_uid == 0 for path in copies.iterdir())
        assert len(list(copies.iterdir())) == 2
        refused = subprocess.run(["setpriv", f"--reuid={user}", "cat", str(live / "privkey.pem")], check=False)
        assert refused.returncode != 0
        server.do("stop")
        assert not copies.exists()
    finally:
        subprocess.run(["rm", "-rf", str(tree)], check=True)


def test_a_socket_unit_opens_the_port(units: tuple[Unit, Unit]) -> None:
    server, client = units
    name = server.name.replace(".service", ".socket")
    copy, enable = commands("units.rst", "A socket unit")
    drop_in = INSTALLED / f"{name}.d"
    drop_in.mkdir()
    (drop_in / "port.conf").write_text("[Socket]\nListenStream=\nListenStream=127.0.0.1:81\n")
    try:
        run("sh", "-c", f"cd {CONTRIB.parent} && {copy}")
        run("systemctl", "daemon-reload")
        server.options(bridge="br0")
        client.options(uri="ws://127.0.0.1:81/", device="ethws1", bridge="br1", wait="forever")
        run(*enable.replace("@lan", "@test").split())
        typed.note(copy, enable)
        # The first connection starts the server.
        client.do("start")
        server.says("listening on ws://127.0.0.1:81/")
        assert "*:80 " not in run("ss", "--no-header", "--listening", "--tcp", "--numeric")
    finally:
        subprocess.run(["systemctl", "disable", "--now", name], check=False)
        (INSTALLED / "etherws-server@.socket").unlink()
        shutil.rmtree(drop_in)
        run("systemctl", "daemon-reload")


def test_two_with_one_device_are_told_apart(units: tuple[Unit, Unit]) -> None:
    server, client = units
    server.do("start")
    client.options(uri="ws://127.0.0.1/", device="ethws0")
    client.do("start", "--no-block")
    client.says("Device or resource busy")
    client.do("stop")
    server.says("listening")


def test_a_name_that_is_not_known_yet_is_waited_for(units: tuple[Unit, Unit]) -> None:
    server, _ = units
    server.options(address="late.test", port="8080")
    server.do("start", "--no-block")
    server.says("cannot listen on late.test")
    hosts = Path("/etc/hosts")
    before = hosts.read_text(encoding="utf-8")
    try:
        hosts.write_text(f"{before}127.0.0.1 late.test\n", encoding="utf-8")
        server.is_in("active")
        assert server.property("NRestarts") == "0"
    finally:
        hosts.write_text(before, encoding="utf-8")


def test_one_that_hangs_is_started_again(units: tuple[Unit, Unit]) -> None:
    server, _ = units
    drop_in = INSTALLED / f"{server.name}.d"
    drop_in.mkdir()
    try:
        (drop_in / "watchdog.conf").write_text("[Service]\nWatchdogSec=10\n")
        run("systemctl", "daemon-reload")
        server.do("start")
        before = pid_of(server)
        run("kill", "-STOP", before)
        until(lambda: pid_of(server) not in ("0", before), "another process")
        server.is_in("active")
    finally:
        (drop_in / "watchdog.conf").unlink()
        drop_in.rmdir()
        run("systemctl", "daemon-reload")
