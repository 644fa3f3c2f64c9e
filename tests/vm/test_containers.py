"""docs/containers.rst, typed as it stands: the image, a server and a client, each with CAP_NET_ADMIN alone.

Two machines with podman are two network namespaces; they share its images. The guest has no network: a base that is
there is imported, and pip finds wheels in a folder (image.py). Nothing else of contrib/Containerfile is changed."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import typed
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.pages import DOCS, answered, commands, invitation
from tests.vm.image import CONTAINERS

pytestmark = [pytest.mark.vm, pytest.mark.long_vm]

#: Seconds for the image, where the processor is emulated.
BUILD = 4 * PATIENCE

#: CAP_NET_ADMIN alone, as in /proc/PID/status. include/uapi/linux/capability.h
NET_ADMIN = 1 << 12

#: What a build of the image may use here in place of a registry and an index of packages.
OFFLINE = (
    f"--network none --build-arg BASE=localhost/base -v {CONTAINERS}/wheels:/wheels:ro"
    " -v {folder}/pip.conf:/etc/pip.conf:ro"
)


class Podman:
    """A machine that runs containers: what is typed there. Its /etc/etherws is a folder of its own."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host, self.folder = host, folder
        folder.mkdir()
        (folder / "hosts").write_text("127.0.0.1 localhost\n192.0.2.1 host.example\n")
        (folder / "containers.conf").write_text(f'[containers]\nbase_hosts_file = "{folder}/hosts"\n')
        (folder / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /wheels\n")

    def starts(self, command: str) -> Process:
        """Type a command."""
        typed.note(command)
        command = command.replace("-v /etc/etherws", f"-v {self.folder}/etherws")
        command = command.replace("mkdir -p /etc/etherws", f"mkdir -p {self.folder}/etherws")
        # The test is no terminal.
        command = command.replace(" -it ", " -i ")
        return self.host.run(
            "sh", "-c", command, cwd=DOCS.parent, env={"CONTAINERS_CONF": f"{self.folder}/containers.conf"}
        )

    def types(self, *commands: str, patience: float = PATIENCE) -> str:
        """Type commands to their ends; what the last one prints."""
        output = ""
        for command in commands:
            begun, process = time.monotonic(), self.starts(command)
            assert process.ends(patience) == 0, f"{command}\n{process.output}"
            output = process.output
            print(f"{time.monotonic() - begun:.1f} s: {command}\n{output}", flush=True)
        return output

    def says(self, name: str, text: str) -> str:
        """Wait until the log of a container has it; the log."""
        until(lambda: text in self.log(name), lambda: f"{text!r} in {self.log(name)}")
        return self.log(name)

    def log(self, name: str) -> str:
        """All that a container has printed."""
        process = self.starts(f"podman logs {name}")
        process.ends()
        return process.output

    def capabilities(self, name: str) -> set[int]:
        """What etherws may do, and what it could get by the programs that it starts."""
        pid = self.types(f"podman inspect --format '{{{{.State.Pid}}}}' {name}").strip()
        status = Path("/proc", pid, "status").read_text()
        return {int(found, 16) for found in re.findall(r"^Cap(?:Prm|Eff|Bnd):\s+(\w+)$", status, re.MULTILINE)}


@pytest.fixture
def machines(hosts: tuple[Host, Host], tmp_path: Path) -> Iterator[tuple[Podman, Podman]]:
    """A server's, 192.0.2.1, and a client's, 192.0.2.2."""
    one, two = (Podman(host, tmp_path / name) for name, host in zip(("one", "two"), hosts, strict=True))
    yield one, two
    # Each unmounts what its containers have in its network namespace.
    for machine, names in ((two, "lan"), (one, "server")):
        machine.starts(f"podman rm --force --time 2 --ignore {names}").ends()


def test_a_server_and_a_client_with_net_admin_alone(machines: tuple[Podman, Podman]) -> None:
    server, client = machines
    [build] = commands("containers.rst", "The image")
    server.types(f"podman import --quiet {CONTAINERS}/base.tar localhost/base", patience=BUILD)
    options = OFFLINE.format(folder=server.folder)
    server.types(build.replace("podman build", f"podman build {options}"), patience=BUILD)
    typed.note(build)
    [image] = json.loads(server.types("podman image inspect etherws"))
    assert image["Config"]["Entrypoint"] == ["etherws"]

    # The server.
    make, init, serve, *look = commands("containers.rst", "A server for the host's LAN")
    server.host.bridge("br0")
    server.host.add_address("br0", "10.9.0.1/24")
    # Else podman writes the secret to the journal as well.
    assert "--log-driver none" in init
    line = invitation(server.types(make, init))
    server.types(serve)
    server.says("server", "listening on wss://*:8443")
    assert server.capabilities("server") == {NET_ADMIN}

    # Without the rest, each error says what to add.
    _, join, run = commands("containers.rst", "A client for one container or pod")[:3]
    client.types(make, answered(join, line))
    typed.note(join)
    bare = run.replace("--name lan --restart always", "--rm").replace("podman run -d", "podman run")
    for left_out in ("--cap-add NET_ADMIN", "--device /dev/net/tun"):
        process = client.starts(bare.replace(left_out, ""))
        assert process.ends() == 1
        assert f"a container needs {left_out}" in process.output

    # The client, and an application.
    client.types(run)
    client.says("lan", "connected to wss://host.example:8443")
    assert client.capabilities("lan") == {NET_ADMIN}
    assert "as 'app' joined on ethws0" in server.types(*look)
    busybox = client.folder / "busybox"
    busybox.mkdir()
    client.types(
        f"mkdir -p {busybox}/bin && cp /bin/busybox {busybox}/bin/ && ln -s busybox {busybox}/bin/ping",
        f"tar --create --directory={busybox} . | podman import --quiet - docker.io/library/busybox",
    )
    *_, ping = commands("containers.rst", "A client for one container or pod")
    assert "3 packets received" in client.types(ping)

    # It is there again if it is killed, and at the end nothing is left.
    pid = client.types("podman inspect --format '{{.State.Pid}}' lan").strip()
    client.types(f"kill -9 {pid}")
    until(lambda: client.log("lan").count("connected to wss://") == 2, lambda: client.log("lan"))
    logs = [client.log("lan"), server.log("server")]
    assert not [text for log in logs for text in log.splitlines() if " INFO " not in text]
    client.types("podman stop lan")
    server.says("server", "left ethws0")
    server.types("podman stop server")
    assert json.loads(server.types("podman inspect server"))[0]["State"]["ExitCode"] == 0
    assert "ethws0" not in server.host.links()
