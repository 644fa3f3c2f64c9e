"""``etherws demo`` to its end, interrupted, without root and where something is missing; and kernel/netns.py."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

import etherws
from tests.lab.hosts import PATIENCE, Host, Process, until

#: Changes what the demo finds, then becomes it: `{change}` has a mount namespace of its own, as root.
LAUNCHER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0, "unshare(CLONE_NEWNS)"
libc.mount(b"none", b"/", None, 0x44000, None) == 0 or sys.exit("mounts cannot be kept from the rest of the machine")
{change}
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
EMPTY_DEV_NET = "assert libc.mount(b'none', b'/dev/net', b'tmpfs', 0, b'mode=755') == 0, 'tmpfs on /dev/net'\n"
TUN = EMPTY_DEV_NET + "os.mknod('/dev/net/tun', 0o20600, os.makedev(10, 200)); os.chmod('/dev/net/tun', {mode})\n"
NOBODY = "os.setgroups([]); os.setgid(65534); os.setuid(65534); os.chdir('/')\n"
#: Root without capabilities (PR_SET_SECUREBITS, SECBIT_NOROOT) where the setting, which each user namespace has of its
#: own, is 0.
NO_NAMESPACES = """
own = os.geteuid()
assert libc.unshare(0x10000000) == 0, "unshare(CLONE_NEWUSER)"
open("/proc/self/uid_map", "w").write(f"0 {own} 1")
open("/proc/sys/user/max_user_namespaces", "w").write("0")
assert libc.prctl(28, 1, 0, 0, 0) == 0, "prctl"
"""


class Demos:
    """Starts demos on a host, and finds what they leave behind."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._mark = f"DEMO_MARK={uuid.uuid4()}"
        self._before = self.links()

    def start(self, *arguments: str, change: str | None = None, **env: str) -> Process:
        """Start ``etherws demo``, after `change` if given (see LAUNCHER)."""
        return self._run(change, ["-m", "etherws", "demo", *arguments], env)

    def nobody_can_read_this(self) -> bool:
        """Whether another user may run this Python and this checkout."""
        return self._run(NOBODY, ["-c", "import etherws.cli.demo"], {}).ends() == 0

    def _run(self, change: str | None, argv: list[str], env: dict[str, str]) -> Process:
        name, _, value = self._mark.partition("=")
        env |= {name: value, "PYTHONPATH": str(Path(etherws.__file__).parent.parent), "PYTHONIOENCODING": "utf-8"}
        if change is not None:
            if os.geteuid() != 0:
                pytest.skip("only root can change what the demo finds, in a mount namespace")
            argv = ["-c", LAUNCHER.format(change=change), *argv]
        process = self._host.run(sys.executable, *argv, env=env)
        if change is not None and process.ends(1.5 * PATIENCE) and "mounts cannot be kept" in process.output:
            pytest.skip(f"{process.output.strip()} here, as in a chroot")
        return process

    def links(self) -> dict[str, tuple[Any, ...]]:
        """The host's interfaces."""
        keys = ("flags", "address", "master", "mtu")
        return {name: tuple(link.get(key) for key in keys) for name, link in self._host.links().items()}

    def processes(self) -> list[str]:
        """The command lines of what was started by these demos and still runs."""
        found = []
        for folder in Path("/proc").iterdir():
            # Ended meanwhile, or no process at all.
            try:
                if self._mark.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return found

    def check_nothing_is_left(self) -> None:
        """Fail if the host's network is not as it was, or a process goes on."""
        until(lambda: not self.processes(), lambda: f"the end of {self.processes()}", 0.1 * PATIENCE)
        assert self.links() == self._before


@pytest.fixture
def demos(host: Host) -> Iterator[Demos]:
    """The demo, on a host of its own. Whatever a test does, the demo must clean up."""
    demos = Demos(host)
    yield demos
    demos.check_nothing_is_left()


def test_the_demo_shows_every_step_and_leaves_nothing(demos: Demos) -> None:
    demo = demos.start("--seconds", "1")
    assert demo.ends(1.5 * PATIENCE) == 0, demo.output
    lines = iter(demo.output.splitlines())
    for words in (
        "two hypervisors, their VMs, a router|\u2713",
        "on Hypervisor1",
        "# etherws server|\u2713 ethws0 is up, listening on ws://*:80/",
        "# brctl addbr br0|\u2713",
        "# brctl addif br0 vnet0|\u2713",
        "# brctl addif br0 ethws0|\u2713",
        "# ifconfig br0 up|\u2713",
        "on Hypervisor2",
        "# etherws client --uri ws://192.0.2.1/|\u2713 ethws0 is up, connected to ws://192.0.2.1:80",
        "# ifconfig br0 up|\u2713",
        "from VM1 to VM2",
        "ping|\u2713",
        "1,500 bytes of IP, don't fragment|\u2713",
        "TCP, one connection",
        "round trip|ms at best",
        "full-size packet|passed whole",
        "TCP throughput|Mbit/s",
        "all this took|s",
        "clean-up|\u2713",
    ):
        assert any(all(word in line for word in words.split("|")) for line in lines), f"{words} not in {demo.output}"
    assert "\u2717" not in demo.output


def test_the_page_is_shown_until_it_is_interrupted(demos: Demos, host: Host) -> None:
    demo = demos.start("--seconds", "0.1", "--page")
    demo.says("Ctrl-C ends the demo.")
    found = re.search(r"http://(127\.0\.0\.1:\d+)(/login\?token=\S+)", demo.output)
    assert found, demo.output
    authority, login = found.groups()
    status, headers, _ = asked(host, authority, "/")
    assert status == 401
    status, headers, _ = asked(host, authority, login)
    assert status == 303
    cookie = headers["Set-Cookie"].partition(";")[0]
    status, headers, body = asked(host, authority, "/", cookie)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert b"page.js" in body
    sessions = json.loads(asked(host, authority, "/status", cookie)[2])["sessions"]
    assert [session["address"] for session in sessions] == ["198.51.100.2"]
    demo.signal(signal.SIGINT)
    assert demo.ends(0.5 * PATIENCE) == 0, demo.output
    assert "clean-up" in demo.output


def asked(host: Host, authority: str, path: str, cookie: str = "") -> tuple[int, Message, bytes]:
    """The status, the headers and the body of the answer to a GET request from this machine."""
    connection = http.client.HTTPConnection(authority, timeout=PATIENCE)
    with host.namespace.inside(), contextlib.closing(connection):
        connection.request("GET", path, headers={"Cookie": cookie, "Accept": "text/html"})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()


def test_settings_of_the_user_and_of_systemd_do_not_reach_it(demos: Demos, tmp_path: Path) -> None:
    env = {"ETHERWS_SERVER_PORT": "8080", "ETHERWS_CLIENT_DEVICE": "lan7", "NOTIFY_SOCKET": str(tmp_path / "none")}
    demo = demos.start("--seconds", "0.1", **env)
    assert demo.ends(1.5 * PATIENCE) == 0, demo.output


def test_a_terminal_without_unicode_gets_the_rest(demos: Demos) -> None:
    demo = demos.start("--seconds", "0.1", PYTHONUTF8="0", LC_ALL="C", PYTHONCOERCECLOCALE="0")
    assert demo.ends(1.5 * PATIENCE) == 0, demo.output


#: What the demo says when it comes to a step.
MOMENTS = ("WebSocket", "on Hypervisor1", "on Hypervisor2", "from VM1", "TCP, one")


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        *((signal.SIGINT, moment) for moment in MOMENTS),
        # The others are handled alike.
        *((number, moment) for number in (signal.SIGTERM, signal.SIGHUP) for moment in (MOMENTS[0], MOMENTS[-1])),
    ],
)
def test_an_interrupted_demo_cleans_up(demos: Demos, number: int, moment: str) -> None:
    demo = demos.start("--seconds", "20")
    demo.says(moment)
    demo.signal(number)
    assert demo.ends(0.5 * PATIENCE) == 1, demo.output
    assert "Aborted!" in demo.output
    assert "Traceback" not in demo.output
    demos.check_nothing_is_left()


def test_a_second_interrupt_does_not_stop_the_clean_up(demos: Demos) -> None:
    demo = demos.start("--seconds", "20")
    demo.says("TCP, one connection")
    # Different ones: two of a kind would be delivered as one.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        demo.signal(number)
    assert demo.ends(0.5 * PATIENCE) == 1, demo.output
    assert "clean-up" in demo.output
    demos.check_nothing_is_left()


@pytest.mark.vm_too
def test_it_runs_without_root(demos: Demos) -> None:
    change = TUN.format(mode="0o666") + NOBODY
    if not demos.nobody_can_read_this():
        pytest.skip("another user cannot read this Python or this checkout")
    demo = demos.start("--seconds", "0.5", change=change)
    if demo.ends(1.5 * PATIENCE) != 0 and "no user namespace for this user" in demo.output:
        pytest.skip(f"this kernel makes no user namespaces for other users: {demo.output.splitlines()[-1]}")
    assert demo.ends() == 0, demo.output
    assert "Mbit/s" in demo.output


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (EMPTY_DEV_NET, ("# etherws server: ", "cannot open /dev/net/tun: No such file", "modprobe tun")),
        (TUN.format(mode="0o600") + NOBODY, ("cannot open /dev/net/tun: Permission denied", "run as root")),
        (NO_NAMESPACES, ("no user namespace for this user: ", "set user.max_user_namespaces to 15000")),
    ],
    ids=["no tun", "a tun of root's own", "no user namespaces"],
)
@pytest.mark.vm_too
def test_what_is_missing_is_named(demos: Demos, change: str, words: tuple[str, ...]) -> None:
    if change.endswith(NOBODY) and not demos.nobody_can_read_this():
        pytest.skip("another user cannot read this Python or this checkout")
    demo = demos.start(change=change)
    assert demo.ends(1.5 * PATIENCE) == 1, demo.output
    if "no user namespace for this user" in demo.output and "no user namespace for this user: " not in words:
        pytest.skip(f"this kernel makes no user namespaces for other users: {demo.output.splitlines()[-1]}")
    for word in words:
        assert word in demo.output
    assert "Traceback" not in demo.output


def interfaces() -> list[str]:
    """The interfaces of this process's namespace."""
    return [line.split(":")[0].strip() for line in Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]]


def fail(text: str) -> None:
    """Fail."""
    raise ValueError(text)


def kill_self() -> None:
    """Die without an answer."""
    os.kill(os.getpid(), signal.SIGKILL)


# Python 3.12 warns of fork() beside the threads that read the output of processes; the children here touch none.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_run_gives_the_result_or_raises_from_within(host: Host) -> None:
    assert host.namespace.run(interfaces) == ["lo"]
    with pytest.raises(ValueError, match="of no use"):
        host.namespace.run(fail, "of no use")
    with pytest.raises(ChildProcessError, match="status -9"):
        host.namespace.run(kill_self)
    assert host.namespace.processes() == []


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_an_interrupt_that_comes_with_the_child_ends_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    children, fork = [], os.fork
    # What was started in the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupted() -> int:
        if child := fork():
            children.append(child)
            # It is blocked, and comes at the end of that.
            signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(os, "fork", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            host.namespace.run(time.sleep, 60)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(ChildProcessError):
        os.waitpid(children[0], os.WNOHANG)


@pytest.mark.parametrize(("deaf", "patience"), [(False, 10.0), (True, 0.1)])
def test_end_ends_what_runs_inside_and_says_how(host: Host, deaf: bool, patience: float) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" if deaf else "import signal;"
    process = host.run(sys.executable, "-c", code + "print('ready', flush=True); signal.pause()")
    process.says("ready")
    assert host.namespace.processes() == [process.pid]
    assert host.namespace.end(patience) is not deaf
    assert process.ends() == (-signal.SIGKILL if deaf else -signal.SIGTERM)
    assert host.namespace.processes() == []
