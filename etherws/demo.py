"""``etherws demo``: the README's picture, built in network namespaces and tried out.

Runs the real server and client with the README's steps, shows each as it happens, and takes everything away again, on
Ctrl-C too. Needs neither root nor other programs, and touches nothing of the machine's own network. The namespaces are
netns.py's; no part of a tunnel is here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, sleep
from types import FrameType

import click
from pyroute2.netlink.exceptions import NetlinkError

from etherws.errors import EtherwsError
from etherws.netns import Namespace, enter_user_namespace

VM1, VM2 = "10.0.0.1", "10.0.0.2"

PINGS = 10

#: Seconds for an answer; everything here is on one machine.
PATIENCE = 5.0

#: include/uapi/linux/in.h; Python's socket module has no names for these.
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2

_PICTURE = """
    VM1 10.0.0.1                                    VM2 10.0.0.2
     |                                                |
    br0 -- ethws0 ====== the tunnel ====== ethws0 -- br0
    Hypervisor1 192.0.2.1 ------ R ------ 198.51.100.1 Hypervisor2
"""


class DemoError(EtherwsError):
    """A step of the demo failed, or this kernel or user cannot run it."""


class Lab:
    """Five namespaces: two virtual machines, their hypervisors, and the router between."""

    def __init__(self) -> None:
        self._all = contextlib.ExitStack()
        self.vm1, self.hypervisor1, self.router, self.hypervisor2, self.vm2 = (
            self._all.enter_context(contextlib.closing(Namespace())) for _ in range(5)
        )
        try:
            self._wire()
        except BaseException:
            self.close()
            raise

    def _wire(self) -> None:
        cables = [
            (self.hypervisor1, "vnet0", "", self.vm1, "eth0", f"{VM1}/24"),
            (self.hypervisor2, "vnet0", "", self.vm2, "eth0", f"{VM2}/24"),
            (self.hypervisor1, "eth0", "192.0.2.1/24", self.router, "eth1", "192.0.2.254/24"),
            (self.hypervisor2, "eth0", "198.51.100.1/24", self.router, "eth2", "198.51.100.254/24"),
        ]
        for near, name, address, far, far_name, far_address in cables:
            near.cable(name, far, far_name)
            near.configure(name, address)
            far.configure(far_name, far_address)
        with self.router.inside():
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        for hypervisor, gateway in ((self.hypervisor1, "192.0.2.254"), (self.hypervisor2, "198.51.100.254")):
            with hypervisor.netlink() as route:
                route.route("add", dst="default", gateway=gateway)

    def close(self) -> None:
        """Let go of the namespaces; the kernel takes apart what is in them."""
        self._all.close()


def run(seconds: float = 3.0) -> None:
    """Show the demo, with `seconds` of TCP. Raises DemoError with the step that failed, or what is missing here."""
    begin = monotonic()
    previous = signal.signal(signal.SIGTERM, _interrupt)
    pids = []
    try:
        with tempfile.TemporaryDirectory(prefix="etherws-demo-") as folder:
            click.echo(_PICTURE)
            with _step("Build it in network namespaces"), _explained():
                lab = _lab()
            try:
                pids = [Path(folder, "server.pid"), Path(folder, "client.pid")]
                _connect(lab.hypervisor1, "Hypervisor1", ["server"], pids[0])
                _connect(lab.hypervisor2, "Hypervisor2", ["client", "--uri", "ws://192.0.2.1/"], pids[1])
                times = _ping(lab.vm1, "VM1 pings VM2", PINGS, 56)
                large = _ping(lab.vm1, "A packet of 1,500 bytes, not to be fragmented", 1, 1472)
                rate = _stream(lab, seconds)
            finally:
                with _step("Clean up"):
                    _end(pids)
                    lab.close()
        _table(times, large, rate, monotonic() - begin)
    except KeyboardInterrupt:
        raise DemoError("interrupted; everything is cleaned up") from None
    finally:
        signal.signal(signal.SIGTERM, previous)


def _lab() -> Lab:
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        why = "is missing: 'modprobe tun'" if not os.path.exists("/dev/net/tun") else "is not open to this user"
        raise DemoError(f"/dev/net/tun {why}; where it cannot be had, there are no TAPs")
    try:
        return Lab()
    except PermissionError:
        pass
    try:
        enter_user_namespace()
    except OSError as exc:
        raise DemoError(f"this kernel lets this user make no namespaces ({exc.strerror}); run it as root") from exc
    return Lab()


def _connect(hypervisor: Namespace, name: str, command: list[str], pidfile: Path) -> None:
    """One side of the README: start etherws, then the bridge."""
    with _step(f"{name} # etherws {' '.join(command)}"):
        done = subprocess.run(
            [sys.executable, "-m", "etherws", *command, "--pidfile", str(pidfile)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=4 * PATIENCE,
            preexec_fn=hypervisor.enter,
            check=False,
        )
        output = (done.stdout + done.stderr).strip()
        if done.returncode != 0 or "cannot" in output:
            raise DemoError(output)
    click.echo(f"      {output}")
    with hypervisor.netlink() as route:
        with _step(f"{name} # brctl addbr br0"):
            route.link("add", ifname="br0", kind="bridge")
            bridge = route.link_lookup(ifname="br0")[0]
        for port in ("vnet0", "ethws0"):
            with _step(f"{name} # brctl addif br0 {port}"):
                route.link("set", index=route.link_lookup(ifname=port)[0], master=bridge)
        with _step(f"{name} # ifconfig br0 up"):
            route.link("set", index=bridge, state="up")


def _ping(vm: Namespace, title: str, count: int, size: int) -> list[float]:
    """Send `count` ICMP echo requests with `size` bytes of data to VM2, unfragmented; return the times in ms."""
    times = []
    with _step(title), vm.inside(), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        sock.settimeout(PATIENCE)
        for number in range(count):
            # RFC 792: type 8, code 0, checksum, identifier, sequence number.
            head = struct.pack(">BBHHH", 8, 0, 0, os.getpid() & 0xFFFF, number)
            data = os.urandom(size)
            packet = head[:2] + _checksum(head + data).to_bytes(2, "big") + head[4:] + data
            sent = monotonic()
            sock.sendto(packet, (VM2, 0))
            # The answer is our packet with type 0, behind an IP header without options.
            while sock.recv(65536)[24:] != packet[4:]:
                pass
            times.append(1000 * (monotonic() - sent))
    return times


def _stream(lab: Lab, seconds: float) -> float:
    """Send by TCP from VM1 to VM2; return the rate in Mbit/s as it arrived."""
    with lab.vm2.inside():
        listener = socket.create_server((VM2, 0))
    with lab.vm1.inside():
        source = socket.create_connection(listener.getsockname(), PATIENCE)
    sink, _ = listener.accept()
    received = 0

    def take() -> None:
        nonlocal received
        buffer = bytearray(1 << 18)
        while size := sink.recv_into(buffer):
            received += size

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    chunk = os.urandom(1 << 16)
    begin = shown = monotonic()
    with (
        contextlib.closing(listener),
        contextlib.closing(sink),
        contextlib.closing(source),
        click.progressbar(length=round(1000 * seconds), label="  TCP from VM1 to VM2", show_eta=False) as bar,
    ):
        while (now := monotonic()) < begin + seconds:
            source.sendall(chunk)
            if now - shown > 0.05:
                bar.update(round(1000 * (now - shown)))
                shown = now
        rate = received * 8e-6 / (monotonic() - begin)
        bar.update(round(1000 * seconds) - bar.pos)
        source.shutdown(socket.SHUT_WR)
        taker.join(PATIENCE)
    return rate


def _end(pidfiles: list[Path]) -> None:
    """End the etherws processes; each removes its PID file when it is done."""
    # An interrupted start may have left no file yet: that daemon ends by itself, with nobody to report to.
    running = [(file, int(file.read_text() or 0)) for file in pidfiles if file.exists()]
    for _, pid in running:
        _kill(pid, signal.SIGTERM)
    deadline = monotonic() + PATIENCE
    for file, pid in running:
        while file.exists() and monotonic() < deadline:
            sleep(0.01)
        if file.exists():
            _kill(pid, signal.SIGKILL)


def _kill(pid: int, number: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _table(times: list[float], large: list[float], rate: float, took: float) -> None:
    rows = [
        ("round trip", f"{statistics.median(times):.2f} ms (median of {len(times)}; least {min(times):.2f} ms)"),
        ("1,500-byte packet", f"whole, there and back in {large[0]:.2f} ms"),
        ("TCP, one flow", f"{rate:,.0f} Mbit/s"),
        ("all of it took", f"{took:.1f} s"),
    ]
    click.echo()
    for name, value in rows:
        click.echo(f"  {name:<20}{value}")


@contextlib.contextmanager
def _step(title: str) -> Iterator[None]:
    """Show a step, then whether it worked."""
    click.echo(f"  {title:<55}", nl=False)
    try:
        yield
    except BaseException as exc:
        click.secho("failed", fg="red")
        if isinstance(exc, TimeoutError | subprocess.TimeoutExpired):
            raise DemoError(f"{title}: no answer within {PATIENCE:g} s") from exc
        raise
    click.secho("ok", fg="green")


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn what the kernel refuses into what is missing."""
    try:
        yield
    except NetlinkError as exc:
        raise DemoError(f"this kernel has no veth or no routing here: {exc.args[-1]}") from exc
    except OSError as exc:
        raise DemoError(f"this kernel or container forbids it: {exc}; run it as root, outside a container") from exc


def _checksum(data: bytes) -> int:
    """RFC 1071, of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
