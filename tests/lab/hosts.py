"""What tests run on: etherws processes, namespaces joined by a cable, raw frames. All waits are bounded."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyroute2 import IPRoute

from etherws.kernel.netns import Namespace
from tests.lab import forked

#: Seconds that anything may take before a test fails; generous, since the machine may be busy. A machine
#: that QEMU emulates gives more.
PATIENCE = float(os.environ.get("PATIENCE", 20))

SOL_PACKET, PACKET_AUXDATA = 263, 8
TP_STATUS_VLAN_VALID = 0x10
#: include/uapi/linux/if.h
IFF_UP = 1

#: The first bytes of every source address that tests send from, to tell their frames from those of the kernel and of
#: etherws. A bridge of etherws has 02 and what comes by chance: of two bytes, one bridge in 256 would look like a test.
OURS = b"\x02\xee\0"


def until(condition: Callable[[], Any], what: str | Callable[[], str], patience: float = PATIENCE) -> Any:
    """Wait until `condition()` is true and return its value; fail with `what` after `patience` seconds."""
    deadline = time.monotonic() + patience
    pause = threading.Event()
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {patience:g} s in vain for {what() if callable(what) else what}")
        pause.wait(0.005)
    return value


_numbers = itertools.count()


class Process:
    """A process in a namespace, its output collected as it comes."""

    def __init__(self, argv: list[str], namespace: Namespace | None = None, **options: Any) -> None:
        def enter() -> None:
            # A shell lets what it starts in the background ignore Ctrl-C.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            if namespace is not None:
                namespace.enter()

        env = {key: value for key, value in os.environ.items() if not key.startswith(("ETHERWS_", "NOTIFY_"))}
        env = {key: value for key, value in env.items() if not key.lower().endswith("_proxy")}
        # To compile etherws at each start would take as long as all the rest of the start.
        env.pop("PYTHONDONTWRITEBYTECODE", None)
        env.update(options.pop("env", {}), PYTHONUNBUFFERED="1")
        for name in ("ETHERWS_SERVER_CONTROL", "ETHERWS_CLIENT_CONTROL"):
            # Those of one test may be of several machines, on which devices have the same names.
            if name in os.environ:
                env.setdefault(name, f"{os.environ[name]}-{next(_numbers)}")
        self.argv = argv
        self._popen: subprocess.Popen[str] | forked.Start
        if forked.current and argv[:3] == [sys.executable, "-m", "etherws"] and not options:
            self._popen = forked.Start(forked.current, argv[3:], env, namespace.fileno() if namespace else None)
        else:
            self._popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=enter,
                env=env,
                **options,
            )
        self.pid = self._popen.pid
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        # Closed here: to close a file waits for whoever reads it.
        with self._popen.stdout as stdout:
            for line in stdout:
                self.output += line

    def says(self, text: str, times: int = 1) -> str:
        """Wait until the output has `text`, `times` times; return the output."""
        until(
            lambda: self.output.count(text) >= times or self._popen.poll() is not None,
            lambda: f"{self.argv[1:]} to say {text!r}; it said: {self.output}",
        )
        if self.output.count(text) < times:
            self._reader.join(PATIENCE)
        assert self.output.count(text) >= times, f"it ended, saying: {self.output}"
        return self.output

    def ends(self, patience: float = PATIENCE) -> int:
        """Wait for the end, and for that of the output; return the exit status."""
        status = self._popen.wait(patience)
        self._reader.join(patience)
        if self._reader.is_alive():
            pytest.fail(f"{self.argv[1:]} ended; what it started keeps its output open, which said: {self.output}")
        return status

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._popen.send_signal(number)

    def stop(self) -> None:
        """End it, by SIGTERM and in the 2 s (and some, on a busy machine) that etherws promises."""
        self.signal(signal.SIGTERM)
        try:
            self.ends(0.4 * PATIENCE)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self.ends()
            pytest.fail(f"{self.argv[1:]} did not end by SIGTERM; it said: {self.output}")

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def descriptors(self) -> int:
        """How many file descriptors it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Host:
    """A namespace that acts as a machine."""

    def __init__(self) -> None:
        self.namespace = Namespace()
        self._processes: list[Process] = []
        self._sockets: list[socket.socket | Frames] = []
        self.namespace.configure("lo")

    @contextlib.contextmanager
    def netlink(self) -> Iterator[IPRoute]:
        """An IPRoute of this machine."""
        with self.namespace.netlink() as route:
            yield route

    def run(self, *argv: str, **options: Any) -> Process:
        """Start a program here; it is ended with the test."""
        process = Process(list(argv), self.namespace, **options)
        self._processes.append(process)
        return process

    def etherws(self, *arguments: str, **options: Any) -> Process:
        """Start ``etherws``."""
        return self.run(sys.executable, "-m", "etherws", *arguments, **options)

    def needs_mounts(self) -> None:
        """Skip the test where a process can have no mounts of its own."""
        code = (
            "import ctypes, sys; libc = ctypes.CDLL(None);"
            "sys.exit(libc.unshare(0x20000) or libc.mount(b'none', b'/', None, 0x44000, None))"
        )
        if self.run(sys.executable, "-c", code).ends() != 0:
            pytest.skip("mounts cannot be kept from the rest of the machine here, as in a chroot")

    def etherws_without_tun(self, *arguments: str) -> Process:
        """Start ``etherws`` where there is no /dev/net/tun: in a mount namespace of its own."""
        if os.geteuid() != 0:
            pytest.skip("only root can hide /dev/net/tun")
        hide = (
            "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True);"
            "assert libc.unshare(0x20000) == 0;"
            "libc.mount(b'none', b'/', None, 0x44000, None) == 0 or sys.exit(77);"
            "assert libc.mount(b'none', b'/dev/net', b'tmpfs', 0, None) == 0;"
            "os.execv(sys.executable, [sys.executable, '-m', 'etherws', *sys.argv[1:]])"
        )
        process = self.run(sys.executable, "-c", hide, *arguments)
        if process.ends() == 77:
            pytest.skip("mounts cannot be kept from the rest of the machine here, as in a chroot")
        return process

    def program(self, name: str) -> str:
        """Where this program is; skip the test if there is none."""
        found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if not found:
            pytest.skip(f"no program {name} on this machine")
        return found

    def command(self, line: str) -> None:
        """Run a command to its end; skip the test if there is no such program."""
        argv = line.split()
        self.program(argv[0])
        process = self.run(*argv, env={"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"})
        assert process.ends() == 0, f"{line}: {process.output}"

    def links(self) -> dict[str, Any]:
        """The interfaces here, by name."""
        with self.netlink() as route:
            return {link.get("ifname"): link for link in route.link("dump")}

    def set_link(self, name: str, **changes: Any) -> None:
        """Change an interface."""
        with self.netlink() as route:
            route.link("set", index=route.link_lookup(ifname=name)[0], **changes)

    def delete_link(self, name: str) -> None:
        """Delete an interface."""
        with self.netlink() as route:
            route.link("del", index=route.link_lookup(ifname=name)[0])

    def add_address(self, name: str, address: str) -> None:
        """Bring an interface up with an address such as 10.0.0.1/24."""
        self.namespace.configure(name, address)

    def bridge(self, name: str, *ports: str) -> None:
        """Make a bridge, up, of these ports."""
        with self.netlink() as route:
            route.link("add", ifname=name, kind="bridge")
            index = route.link_lookup(ifname=name)[0]
            route.link("set", index=index, state="up")
            for port in ports:
                route.link("set", index=route.link_lookup(ifname=port)[0], master=index)

    def frames(self, name: str) -> Frames:
        """Raw frames on an interface, which is waited for until it is up: before, its socket has an error to tell."""
        until(lambda: name in (links := self.links()) and links[name]["flags"] & IFF_UP, f"{name} to be up")
        with self.namespace.inside():
            frames = Frames(name)
        self._sockets.append(frames)
        return frames

    def socket(self, *arguments: Any) -> socket.socket:
        """A socket of this machine."""
        with self.namespace.inside():
            sock = socket.socket(*arguments)
        self.keep(sock)
        return sock

    def keep(self, sock: Any) -> Any:
        """Close the socket with the test."""
        self._sockets.append(sock)
        return sock

    def close(self) -> None:
        """End what still runs. All of it ends, even if one process does not end as it should, which fails the test."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.namespace.close)
            for process in reversed(self._processes):
                stack.callback(process.stop)
            for sock in self._sockets:
                stack.callback(sock.close)


def cable(one: Host, other: Host, first: str, second: str) -> None:
    """Join two machines by a veth pair, eth0 on both, with these IPv4 addresses."""
    one.namespace.cable("eth0", other.namespace, "eth0")
    for host, address in ((one, first), (other, second)):
        host.namespace.configure("eth0", address)


class Frames:
    """Sends and receives whole frames on an interface, VLAN tags included (packet(7))."""

    def __init__(self, name: str) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((name, 3))
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.settimeout(PATIENCE)

    def send(self, frame: bytes) -> None:
        """Send one frame; it is dropped if the interface has no room for it."""
        try:
            self._socket.send(frame)
        except OSError as exc:
            if exc.errno != errno.ENOBUFS:
                raise

    def receive(self) -> bytes:
        """The next frame that a test sent to this interface. Raises TimeoutError, even if others never stop."""
        deadline = time.monotonic() + PATIENCE
        while True:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no frame of the tests' own within {PATIENCE:g} s")
            frame, ancillary, _, address = self._socket.recvmsg(70_000, 100)
            if address[2] == socket.PACKET_OUTGOING:
                continue
            for level, kind, data in ancillary:
                if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                    # struct tpacket_auxdata, include/uapi/linux/if_packet.h
                    status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", data[:20])
                    if status & TP_STATUS_VLAN_VALID:
                        frame = frame[:12] + struct.pack(">HH", tpid, tci) + frame[12:]
            if frame.startswith(OURS, 6):
                return frame

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
