"""``etherws demo``: build the README's picture in network namespaces, run its commands, and send traffic through it.

Changes nothing outside its namespaces, and starts no program but ``etherws``: the bridge commands are shown as a user
types them, and done by netlink. The order in this file: the steps, the picture, the traffic, the user's screen. Read
next: kernel/netns.py, which has the namespaces; demo_page.py, which shows the live page.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import click

from etherws.cli import demo_page
from etherws.errors import DemoError
from etherws.kernel import packet_sockets
from etherws.kernel.netns import ENDING, Namespace, enter_user_namespace, privileged
from etherws.kernel.pyroute2_parts import NetlinkError

PICTURE = """
  VM1 --- br0 --- ethws0 ====== WebSocket ====== ethws0 --- br0 --- VM2
          Hypervisor1 --- eth0 --- R --- eth0 --- Hypervisor2
"""

#: Seconds that a command, an answer or the end of a process may take. One is usual; an emulated machine has taken 12.
TIMEOUT = 30.0

#: Bytes of ICMP payload in an IP packet of 1,500 bytes: 20 are the IP header, 8 the ICMP header.
FULL_PAYLOAD = 1500 - 20 - 8


def run(seconds: float = 3.0, *, page: bool = False) -> None:
    """Build the tunnel, send traffic through it, and remove everything; TCP is measured for `seconds`. With `page`,
    show the live page before the end, until Ctrl-C.

    Raises DemoError if a step fails, and KeyboardInterrupt after Ctrl-C, SIGTERM or SIGHUP; both after the clean-up.
    """
    began = time.monotonic()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # Some encodings do not have the tick.
    with _interruptible(), contextlib.ExitStack() as stack:
        click.echo(PICTURE)
        # It belongs to the machine: after this the process may have no right to return there.
        door = stack.enter_context(contextlib.closing(demo_page.Door())) if page else None
        control = Path(stack.enter_context(tempfile.TemporaryDirectory()), "control") if page else None
        with _step("two hypervisors, their VMs, a router"):
            if not privileged():
                enter_user_namespace()
            one, two, vm1, vm2 = build(stack)
        stack.callback(_end_processes, one, two)
        monitor = ("--monitor", "{}:{}".format(*demo_page.MONITOR)) if page else ()
        _set_up("Hypervisor1", one, "server", *monitor, control=control)
        _set_up("Hypervisor2", two, "client", "--uri", "ws://192.0.2.1/")
        click.echo("\nfrom VM1 to VM2")
        with _step("ping") as notes:
            trips = vm1.run(ping, "10.0.0.2", 5, 56)
            notes += [*(f"{trip:.2f}" for trip in trips), "ms"]
        with _step("1,500 bytes of IP, don't fragment"):
            vm1.run(ping, "10.0.0.2", 1, FULL_PAYLOAD)
        rate = throughput(vm1, vm2, "10.0.0.2", seconds)
        click.echo(f"\n  round trip          {min(trips):.2f} ms at best, {sum(trips) / len(trips):.2f} ms on average")
        click.echo("  full-size packet    passed whole")
        click.echo(f"  TCP throughput      {rate:,.0f} Mbit/s")
        click.echo(f"  all this took       {time.monotonic() - began:.1f} s\n")
        if door and control:
            demo_page.show(door, control, one, vm1, vm2, "10.0.0.2")


def build(stack: contextlib.ExitStack) -> tuple[Namespace, Namespace, Namespace, Namespace]:
    """Build the picture without the tunnel: hypervisors 1 and 2, VMs 1 and 2. Closing `stack` removes them.

    A router joins the hypervisors, 192.0.2.1 and 198.51.100.2. Nothing joins the VMs, 10.0.0.1 and 10.0.0.2, yet.
    """
    one, two, vm1, vm2, router = (stack.enter_context(Namespace()) for _ in range(5))
    for machine in (one, two, vm1, vm2, router):
        machine.configure("lo")
    for number, hypervisor, vm, network in ((1, one, vm1, "192.0.2"), (2, two, vm2, "198.51.100")):
        router.cable(f"eth{number}", hypervisor, "eth0")
        router.configure(f"eth{number}", f"{network}.254/24")
        hypervisor.configure("eth0", f"{network}.{number}/24")
        with hypervisor.netlink() as route:
            route.route("add", dst="default", gateway=f"{network}.254")
        hypervisor.cable("vnet0", vm, "eth0")
        hypervisor.configure("vnet0")
        vm.configure("eth0", f"10.0.0.{number}/24")
    with router.inside():
        try:
            # In /proc/sys/net each process sees its own namespace.
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        except OSError as exc:
            raise DemoError(
                f"cannot switch on IPv4 forwarding: {exc.strerror}; in a container, allow it to write to /proc/sys"
            ) from exc
    return one, two, vm1, vm2


def _set_up(name: str, hypervisor: Namespace, *arguments: str, control: Path | None = None) -> None:
    """Do what a user types on one side: run ``etherws``, and make the bridge by netlink."""
    click.echo(f"\non {name}")
    with _step(f"# etherws {' '.join(arguments)}") as notes:
        # The last line only: before it the server warns that it lets everyone in.
        notes += [line for line in etherws(hypervisor, *arguments, control=control).splitlines() if " is up, " in line]
    with _step("# brctl addbr br0"), hypervisor.netlink() as route:
        route.link("add", ifname="br0", kind="bridge")
    for port in ("vnet0", "ethws0"):
        with _step(f"# brctl addif br0 {port}"), hypervisor.netlink() as route:
            bridge, index = (route.link_lookup(ifname=name)[0] for name in ("br0", port))
            route.link("set", index=index, master=bridge)
    with _step("# ifconfig br0 up"):
        hypervisor.configure("br0")


def etherws(hypervisor: Namespace, *arguments: str, control: Path | None = None) -> str:
    """Run ``etherws`` until it goes into the background; return its output. Raises DemoError if it fails.

    `control` is its control socket, if it is to have one.
    """
    # The user's own settings must not apply; nor NOTIFY_SOCKET, if systemd started the demo.
    env = {key: value for key, value in os.environ.items() if not key.startswith(("ETHERWS_", "NOTIFY_"))}
    env = {key: value for key, value in env.items() if not key.lower().endswith("_proxy")}
    # A file and not a pipe: a process that hangs in the background would keep the pipe open.
    with open(os.memfd_create("output"), "w+", encoding="utf-8", errors="replace") as output:
        argv = [sys.executable, "-m", "etherws", *arguments, "--state-dir", "", "--control", str(control or "")]
        with hypervisor.inside():
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
        status = None
        with process, contextlib.ExitStack() as stack:
            stack.callback(process.kill)
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = process.wait(TIMEOUT)
        output.seek(0)
        text = output.read().strip()
    if status != 0 or "cannot" in text:
        end = f"ended with status {status}" if status is not None else f"did not return within {TIMEOUT:g} s"
        raise DemoError(f"{end}, with the output: {text or 'none'}")
    return text


def ping(address: str, count: int, size: int) -> list[float]:
    """Send `count` ICMP echo requests of `size` bytes, unfragmented; return the round trips in milliseconds (RFC 792).

    Raises DemoError if not all of them are answered in time.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        # IP_MTU_DISCOVER, IP_PMTUDISC_PROBE (include/uapi/linux/in.h): don't fragment, and ignore a cached path MTU.
        sock.setsockopt(socket.IPPROTO_IP, 10, 3)
        sock.connect((address, 0))
        sock.settimeout(1)
        payload = bytes(index & 0xFF for index in range(size))
        trips: list[float] = []
        deadline = time.monotonic() + TIMEOUT
        sequence = 0
        while len(trips) < count:
            if time.monotonic() > deadline:
                raise DemoError(f"{len(trips)} of {count} answers from {address} within {TIMEOUT:g} s")
            sequence += 1
            request, expected = _echo(8, sequence, payload), _echo(0, sequence, payload)
            sent = time.perf_counter()
            sock.send(request)
            with contextlib.suppress(TimeoutError):
                # The ICMP message follows the IP header, whose length is in words of 4 bytes.
                while (reply := sock.recv(65536))[(reply[0] & 15) * 4 :] != expected:
                    pass
                trips.append((time.perf_counter() - sent) * 1000)
    return trips


def _echo(kind: int, sequence: int, payload: bytes) -> bytes:
    """An ICMP echo request (kind 8) or reply (0), with its checksum. `payload` must have an even length."""
    message = struct.pack("!BBHHH", kind, 0, 0, os.getpid() & 0xFFFF, sequence) + payload
    return message[:2] + struct.pack("!H", packet_sockets.checksum(message)) + message[4:]


def throughput(sender: Namespace, receiver: Namespace, address: str, seconds: float) -> float:
    """The Mbit/s that one TCP connection carries from `sender` to `receiver`, with a progress bar. Raises DemoError."""
    received = 0

    def drain() -> None:
        nonlocal received
        buffer = bytearray(1 << 18)
        with contextlib.suppress(OSError):
            while count := far.recv_into(buffer):
                received += count

    with contextlib.ExitStack() as stack:
        try:
            with receiver.inside():
                listener = stack.enter_context(socket.create_server((address, 5001)))
            listener.settimeout(TIMEOUT)
            with sender.inside():
                near = stack.enter_context(socket.create_connection((address, 5001), TIMEOUT))
            far = stack.enter_context(listener.accept()[0])
            reader = threading.Thread(target=drain)
            reader.start()
            try:
                chunk = bytes(1 << 16)
                began = time.monotonic()
                with click.progressbar(length=100, label="  TCP, one connection", show_eta=False, width=24) as bar:
                    while (elapsed := time.monotonic() - began) < seconds:
                        near.sendall(chunk)
                        if (done := int(100 * elapsed / seconds)) > bar.pos:
                            bar.update(done - bar.pos)
                    bar.update(100 - bar.pos)
                return received * 8e-6 / (time.monotonic() - began)
            finally:
                # Ends the reader, even if the tunnel is broken.
                with contextlib.suppress(OSError):
                    far.shutdown(socket.SHUT_RDWR)
                reader.join()
        except OSError as exc:
            raise DemoError(f"TCP to {address}: {exc}") from exc


@contextlib.contextmanager
def _step(text: str) -> Iterator[list[str]]:
    """Show a step while it runs. The words that the block puts into the list are shown after the tick. OSError and
    netlink errors become DemoError."""
    click.echo(f"  {text:<42}", nl=False)
    notes: list[str] = []
    try:
        yield notes
    except BaseException as exc:
        click.secho("\u2717", fg="red")
        if isinstance(exc, NetlinkError):
            hint = "; load the kernel's drivers with 'modprobe -a veth bridge'" if exc.code == errno.EOPNOTSUPP else ""
            raise DemoError(f"{text}: {os.strerror(exc.code)}{hint}") from exc
        if isinstance(exc, OSError | DemoError):
            raise DemoError(f"{text}: {getattr(exc, 'strerror', None) or exc}") from exc
        raise
    click.echo(" ".join((click.style("\u2713", fg="green"), *notes)))


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Make SIGTERM and SIGHUP do what Ctrl-C does: raise KeyboardInterrupt, once."""

    def interrupt(number: int, frame: object) -> None:
        # A second one could come between two lines of a clean-up, and leave the second undone.
        _ignore_interrupts()
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, interrupt)) for number in ENDING]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _end_processes(*hypervisors: Namespace) -> None:
    """End the processes in these namespaces. No PID file is used: after an interrupted start there is none."""
    _ignore_interrupts()
    with _step("clean-up"):
        in_time = [hypervisor.end(TIMEOUT / 2) for hypervisor in hypervisors]
        if not all(in_time):
            raise DemoError(f"etherws did not end within {TIMEOUT / 2:g} s after SIGTERM, and was killed")


def _ignore_interrupts() -> None:
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
