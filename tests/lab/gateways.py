"""Gateways of one LAN: machines with contrib/evpn, FRR and an etherws server; clients of theirs; a network for all."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.lab.hosts import Host, Process, until

CONTRIB = Path(__file__).resolve().parents[2] / "contrib" / "evpn"

#: Where Debian puts FRR's daemons, and whom they run as.
FRR, USER = Path("/usr/lib/frr"), "frr"

#: The LAN's VXLAN device, as contrib/evpn makes it.
VXLAN = "vxlan100"

#: Bytes that VXLAN adds to a frame's payload: IPv4, UDP and VXLAN headers and the inner Ethernet header. RFC 7348, 5.
OVERHEAD = 50


def address_of(number: int) -> str:
    """The address of a machine in the network between gateways and clients."""
    return f"192.0.2.{number}"


def configuration(number: int, neighbors: Sequence[int]) -> str:
    """contrib/evpn/frr.conf as its first lines say that it is on this gateway."""
    text = (CONTRIB / "frr.conf").read_text()
    text = text.replace("router-id 192.0.2.1", f"router-id {address_of(number)}")
    lines = "".join(f" neighbor {address_of(each)} peer-group gateways\n" for each in neighbors)
    text, replaced = re.subn(r"( neighbor 192\.0\.2\.\d+ peer-group gateways\n)+", lines, text)
    assert replaced == 1
    return text.replace("log syslog informational\n", "")


class Daemons:
    """zebra and bgpd of one machine, with sockets of their own, so that several machines can be one."""

    def __init__(self, host: Host) -> None:
        if not (FRR / "bgpd").exists():
            pytest.skip("no FRR on this machine; make acceptance installs Debian's package frr")
        self._host = host
        # The path of a socket must be short, and FRR's user must get there.
        self.folder = Path(tempfile.mkdtemp(prefix="frr"))
        shutil.chown(self.folder, USER, USER)
        (self.folder / "empty.conf").touch()
        self.processes: list[Process] = []

    def start(self, text: str) -> None:
        """Start them with this configuration."""
        (self.folder / "frr.conf").write_text(text)
        (self.folder / "vtysh.conf").write_text("service integrated-vtysh-config\n")
        for name in ("zebra", "bgpd"):
            options = [f"--vty_socket={self.folder}", f"--pid_file={self.folder}/{name}.pid", f"--log=file:{self.log}"]
            # As in contrib/evpn/daemons: the kernel tells of many addresses at once in a storm of clients.
            options += ["--nl-bufsize=90000000"] if name == "zebra" else []
            options += [f"--socket={self.folder}/zserv.api", f"--config_file={self.folder}/empty.conf", "--vty_port=0"]
            argv = [str(FRR / name), *options, f"--user={USER}", f"--group={USER}"]
            self.processes.append(self._host.run(*argv))
            until((self.folder / f"{name}.vty").exists, lambda: f"FRR to start: {self.processes[-1].output}")
        loading = self._host.run("vtysh", f"--vty_socket={self.folder}", f"--config_dir={self.folder}", "-b")
        assert loading.ends() == 0, loading.output
        # FRR marks what it does not understand so, and goes on.
        assert "%" not in loading.output, loading.output

    @property
    def log(self) -> Path:
        """What they log."""
        return self.folder / "log"

    def show(self, command: str) -> str:
        """What vtysh says to this command."""
        process = self._host.run("vtysh", f"--vty_socket={self.folder}", "-c", command)
        assert process.ends() == 0, process.output
        return process.output

    def close(self) -> None:
        """Remove their files."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Gateway(Host):
    """A machine with a bridge, VXLAN, FRR and an etherws server, which all have the same LAN."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number, self.address = number, address_of(number)
        self.frr = Daemons(self)
        self.server: Process | None = None

    def make_lan(self) -> None:
        """The bridge and VXLAN, by contrib/evpn/gateway."""
        self.command(f"sh {CONTRIB}/gateway up {self.address}")

    def serve(self, *options: str) -> Process:
        """Start the etherws server."""
        self.server = self.etherws("server", "--foreground", "--bridge", "br0", *options)
        self.server.says("listening")
        return self.server

    def entries(self, address: str) -> dict[str, str]:
        """Where the bridge and VXLAN have this Ethernet address: the rest of the line, by interface."""
        listing = self.run("bridge", "fdb", "show")
        assert listing.ends() == 0
        lines = [line.split() for line in listing.output.splitlines()]
        found: dict[str, str] = {}
        for mac, _, device, *rest in lines:
            if mac == address:
                found[device] = f"{found.get(device, '')} {' '.join(rest)}".strip()
        return found

    def peers(self) -> set[str]:
        """The gateways to which broadcasts go."""
        listing = self.run("bridge", "fdb", "show", "dev", VXLAN)
        assert listing.ends() == 0
        return set(re.findall(r"^00:00:00:00:00:00 dst (\S+)", listing.output, re.MULTILINE))

    def die(self) -> None:
        """End as a machine without power does: nobody is told."""
        self.set_link("eth0", state="down")
        for number in self.namespace.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)

    def close(self) -> None:
        """End what still runs."""
        super().close()
        self.frr.close()


class Network:
    """Machines that reach each other: by their number, 192.0.2.NUMBER."""

    def __init__(self, mtu: int) -> None:
        self._stack = contextlib.ExitStack()
        self._mtu, self._wires = mtu, 0
        self._switch = self._stack.enter_context(contextlib.closing(Host()))
        self._switch.bridge("wires")
        self.gateways: list[Gateway] = []

    def plug(self, host: Host, number: int) -> None:
        """Give this machine eth0."""
        self._wires += 1
        name = f"wire{self._wires}"
        host.namespace.cable("eth0", self._switch.namespace, name)
        for owner, end in ((host, "eth0"), (self._switch, name)):
            owner.set_link(end, mtu=self._mtu)
        self._switch.set_link(name, state="up", master=int(self._switch.links()["wires"]["index"]))
        host.add_address("eth0", f"{address_of(number)}/24")

    def machine(self, number: int) -> Host:
        """A machine that is no gateway."""
        host = self._stack.enter_context(contextlib.closing(Host()))
        self.plug(host, number)
        return host

    def client(self, number: int, *arguments: str) -> tuple[Host, Process]:
        """A machine with an etherws client whose LAN's address is 10.0.0.NUMBER, at br0; and the client."""
        host = self.machine(number)
        process = join(host, number, *arguments)
        return host, process

    def add_gateway(self, number: int, neighbors: Sequence[int]) -> Gateway:
        """A gateway that knows these others. It has no etherws server yet."""
        gateway = self._stack.enter_context(contextlib.closing(Gateway(number)))
        self.plug(gateway, number)
        gateway.make_lan()
        gateway.frr.start(configuration(number, neighbors))
        self.gateways.append(gateway)
        return gateway

    def add_gateways(self, count: int, *options: str) -> list[Gateway]:
        """Gateways 1 to `count`, which know each other, with etherws servers that have these options."""
        numbers = range(1, count + 1)
        for number in numbers:
            self.add_gateway(number, [each for each in numbers if each != number])
        for gateway in self.gateways:
            others = {each.address for each in self.gateways} - {gateway.address}
            until(lambda: gateway.peers() == others, lambda: f"all gateways: {gateway.frr.log.read_text()}")  # noqa: B023
            gateway.serve(*options)
        return self.gateways

    def close(self) -> None:
        """End all."""
        self._stack.close()


def machine_behind(host: Host, number: int) -> Host:
    """A machine of the LAN, 10.0.0.NUMBER, in this one's br0. It says nothing by itself once it is there."""
    machine = host.keep(Host())
    name = f"vnet{number}"
    host.namespace.cable(name, machine.namespace, "eth0")
    host.set_link(name, state="up", master=int(host.links()["br0"]["index"]))
    give_addresses(machine, "eth0", number)
    return machine  # type: ignore[no-any-return]


def give_addresses(host: Host, name: str, number: int) -> None:
    """Make this interface the LAN's machine of this number: 10.0.0.NUMBER, and its Ethernet address."""
    host.command(f"ip link set {name} addrgenmode none")
    host.command(f"ip link set {name} address {mac_of(number)}")
    host.add_address(name, f"10.0.0.{number}/24")


def mac_of(number: int) -> str:
    """The Ethernet address of a client's machine in the LAN."""
    return f"02:ee:00:00:00:{number:02x}"


def join(host: Host, number: int, *arguments: str) -> Process:
    """Start an etherws client on this machine; its bridge has an address of the LAN."""
    if "br0" not in host.links():
        host.bridge("br0")
        give_addresses(host, "br0", number)
    client = host.etherws("client", "--foreground", "--bridge", "br0", *arguments)
    client.says("connected to")
    return client


def pings(host: Host, number: int, patience: float | None = None) -> None:
    """Wait until this machine reaches the other one in the LAN."""

    def reaches() -> bool:
        return host.run("ping", "-c1", "-W1", f"10.0.0.{number}").ends() == 0

    what = f"10.0.0.{number} to answer"
    until(reaches, what) if patience is None else until(reaches, what, patience)


@contextlib.contextmanager
def gateway_network(gateways: int, *options: str, mtu: int = 1500 + OVERHEAD) -> Iterator[Network]:
    """So many gateways of one LAN, whose etherws servers have these options, and a network with clients to come."""
    with contextlib.closing(Network(mtu)) as net:
        net.add_gateways(gateways, *options)
        yield net
