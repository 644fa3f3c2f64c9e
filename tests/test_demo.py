"""``etherws demo``, as root and not, to its end and interrupted."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from pyroute2 import IPRoute

import etherws
from tests.lab import Host, until


def processes() -> set[str]:
    """The command lines of all etherws processes."""
    found = set()
    for folder in Path("/proc").iterdir():
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "-m etherws" in line and "etherws-demo-" in line:
            found.add(line)
    return found


def links() -> set[tuple[int, str]]:
    """The interfaces of this process's namespace."""
    with IPRoute() as route:
        return {(link["index"], link.get("ifname")) for link in route.link("dump")}


def test_the_demo_shows_every_step_and_leaves_nothing(host: Host) -> None:
    before = links(), set(host.links())
    demo = host.etherws("demo", "--seconds", "0.5")
    assert demo.ends(60) == 0, demo.output
    for words in (
        "Hypervisor1 # etherws server",
        "ethws0 is up, listening on ws://*:80/",
        "Hypervisor2 # etherws client --uri ws://192.0.2.1/",
        "ethws0 is up, connected to ws://192.0.2.1:80",
        "brctl addif br0 vnet0",
        "ifconfig br0 up",
        "VM1 pings VM2",
        "TCP from VM1 to VM2",
        "Clean up",
        "Mbit/s",
    ):
        assert words in demo.output
    assert "failed" not in demo.output
    assert (links(), set(host.links())) == before
    assert not processes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["etherws server", "VM1 pings VM2", "TCP from VM1"])
def test_an_interrupted_demo_cleans_up(host: Host, number: int, moment: str) -> None:
    demo = host.etherws("demo", "--seconds", "20")
    demo.says(moment)
    demo.signal(number)
    assert demo.ends() == 1
    assert "interrupted; everything is cleaned up" in demo.output
    until(lambda: not processes(), "its processes to go")


def test_the_demo_runs_without_root(host: Host) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests have shown it: this user is not root")
    # The node may be root's own (mode 0600): put another in its place, in a mount namespace of the child's own.
    become = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True);"
        "assert libc.unshare(0x20000) == 0;"
        "libc.mount(b'none', b'/', None, 0x44000, None) == 0 or sys.exit('a chroot');"
        "assert libc.mount(b'none', b'/dev/net', b'tmpfs', 0, b'mode=755') == 0;"
        "os.mknod('/dev/net/tun', 0o20666, os.makedev(10, 200)); os.chmod('/dev/net/tun', 0o666);"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534); os.chdir('/');"
        "os.access(sys.executable, os.X_OK) or sys.exit('unreadable');"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    env = {"PYTHONPATH": str(Path(etherws.__file__).parent.parent), "HOME": "/nonexistent"}
    trial = host.run(sys.executable, "-c", become, "-c", "import etherws.demo", env=env)
    if trial.ends() != 0:
        pytest.skip("another user cannot read this Python or this checkout, or this is a chroot")
    demo = host.run(sys.executable, "-c", become, "-m", "etherws", "demo", "--seconds", "0.5", env=env)
    status = demo.ends(60)
    if status != 0 and "lets this user make no namespaces" in demo.output:
        pytest.skip("this kernel lets nobody but root make user namespaces")
    assert status == 0, demo.output
    assert "Mbit/s" in demo.output


def test_a_missing_tun_device_is_named(host: Host) -> None:
    demo = host.etherws_without_tun("demo")
    assert demo.ends() == 1
    assert "/dev/net/tun is missing: 'modprobe tun'" in demo.output
