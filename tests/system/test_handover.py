"""SIGUSR2: a new image of the same process goes on with the same interface, and what could go wrong on the way."""

from __future__ import annotations

import contextlib
import operator
import os
import re
import shutil
import signal
import socket
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import etherws
from tests.lab import passwords, tunnels
from tests.lab.hosts import PATIENCE, Host, until

PACKAGE = Path(etherws.__file__).parent

#: What must stay of an interface: all that an administrator, a bridge or a peer has to do with.
STAYS = ("ifname", "address", "master", "mtu", "carrier_changes", "carrier_up_count", "carrier_down_count")


def facts(host: Host, name: str) -> dict[str, Any]:
    """What must stay of an interface, its index among it."""
    link = host.links()[name]
    return {"index": link["index"], **{fact: link.get(fact) for fact in STAYS}}


def bytes_carried(host: Host, name: str) -> int:
    """An interface's counters."""
    stats = host.links()[name].get("stats64")
    return int(stats["rx_bytes"] + stats["tx_bytes"])


def copy(folder: Path, name: str, *changes: tuple[str, str, str]) -> Path:
    """A version of the package in a folder of its own. Each change is a file, a text and what replaces it."""
    target = folder / name
    # With the bytecode, which counts as long as the time of the source is the same: to compile all takes seconds.
    shutil.copytree(PACKAGE, target / "etherws", ignore=shutil.ignore_patterns("*.pyc.*"))
    for file, old, new in (("__init__.py", etherws.__version__, name), *changes):
        path = target / "etherws" / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))
    return target


def link(folder: Path, target: Path) -> None:
    """Have the folder's "etherws" be this version."""
    (folder / "new").symlink_to(target / "etherws")
    (folder / "new").replace(folder / "etherws")


@pytest.mark.parametrize("role", ["server", "client"])
def test_a_link_goes_on_through_new_images(hosts: tuple[Host, Host], tmp_path: Path, role: str) -> None:
    left, right = hosts
    server = left.etherws("server", "--foreground", "--bridge", "br0", "--pidfile", "server", cwd=tmp_path)
    server.says("listening on ws://")
    argv = ["client", "--foreground", "--bridge", "br1", "--drop", "bpdu", "--pidfile", "client", "ws://192.0.2.1/"]
    client = right.etherws(*argv, cwd=tmp_path)
    client.says("connected to ws")
    process, pid_file = (server if role == "server" else client), tmp_path / role
    for host, name, address in ((left, "br0", "10.0.0.1/24"), (right, "br1", "10.0.0.2/24")):
        tunnels.add_addresses(host, name, address)
    stream = tunnels.Stream(right, left, "10.0.0.1")
    stream.goes_on()
    interfaces = [(left, "ethws0"), (left, "br0"), (right, "ethws0"), (right, "br1")]
    before = [facts(*interface) for interface in interfaces]
    inode = pid_file.stat().st_ino
    for number in (1, 2):
        carried = [bytes_carried(*interface) for interface in interfaces]
        process.signal(signal.SIGUSR2)
        process.says("INFO handed over to version", number)
        client.says("connected to ws", number + 1)
        stream.goes_on()
        assert [facts(*interface) for interface in interfaces] == before
        assert all(map(operator.gt, [bytes_carried(*interface) for interface in interfaces], carried))
        assert (int(pid_file.read_text()), pid_file.stat().st_ino) == (process.pid, inode)
    stream.finish()
    # The lock is there, too.
    second = right.etherws("client", "--foreground", "--pidfile", role, "ws://192.0.2.1/", cwd=tmp_path)
    assert second.ends() == 1
    assert f"belongs to process {process.pid}" in second.output
    host, bridge = (left, "br0") if role == "server" else (right, "br1")
    process.stop()
    assert "ethws0" not in host.links()
    # It was made by an image before, and has an address now.
    assert f"{bridge} stays: it has the address" in process.output
    assert not pid_file.exists()


#: What a process has, and has no reason to change: /proc/PID/status (proc(5)).
LASTING = re.compile(r"^(?:Umask|SigBlk|SigIgn|SigCgt|Uid|Gid|Cap...|NoNewPrivs|PPid|Pid):.*$", re.MULTILINE)


def state_of(pid: int) -> dict[str, object]:
    """What a process has of its caller, of its start, and of the system."""
    folder = Path(f"/proc/{pid}")
    descriptors = {name: os.readlink(folder / "fd" / name) for name in os.listdir(folder / "fd")}
    return {
        "status": LASTING.findall((folder / "status").read_text()),
        "limits": (folder / "limits").read_text(),
        "nice": os.getpriority(os.PRIO_PROCESS, pid),
        "folder": os.readlink(folder / "cwd"),
        "standard": [descriptors[name] for name in "012"],
        "kinds": Counter(re.sub(r"\d+", "", kind) for kind in descriptors.values()),
    }


def test_in_the_background_the_process_stays_what_it_is(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    left, right = hosts
    passwords.write(tmp_path / "htpasswd", f"alice:{passwords.hashed('s3cret')}\n")
    server = left.etherws("server", "--foreground", "--htpasswd", "htpasswd", cwd=tmp_path)
    server.says("listening on ws://")
    options = ["--header", "X-Key: h1dden", "--pidfile", "pid", "--wait", "--ping-interval", "7"]
    starter = right.etherws("client", "ws://alice:s3cret@192.0.2.1/", *options, cwd=tmp_path, umask=0o027)
    assert starter.ends() == 0
    pid = int((tmp_path / "pid").read_text())
    seen, over = set[bytes](), threading.Event()

    def watch() -> None:
        while not over.is_set():
            for folder in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):
                    seen.add((folder / "cmdline").read_bytes())

    watcher = threading.Thread(target=watch)
    try:
        before = state_of(pid)
        watcher.start()
        for number in (2, 3):
            os.kill(pid, signal.SIGUSR2)
            server.says("as 'alice' joined on ethws0", number)
            assert state_of(pid) == before
        over.set()
        watcher.join()
        assert any(b"rehearsal" in line for line in seen)
        assert [line for line in seen if b"s3cret" in line or b"h1dden" in line] == []
        assert int((tmp_path / "pid").read_text()) == pid
    finally:
        over.set()
        os.kill(pid, signal.SIGTERM)
    until(lambda: not (tmp_path / "pid").exists(), "its end")
    assert "ethws0" not in right.links()


def test_systemd_hears_of_a_hand_over(host: Host, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(PATIENCE)
        server = host.etherws("server", "--port", "0", env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        said = list[bytes]()

        def told(line: bytes) -> None:
            while not any(line in message.split(b"\n") for message in said):
                said.append(notify.recv(1000))
            said.clear()

        told(b"READY=1")
        server.signal(signal.SIGUSR2)
        told(b"RELOADING=1")
        told(b"READY=1")
        server.says("INFO handed over to version")
        # One that comes while the new image begins is not lost.
        server.signal(signal.SIGUSR2)
        told(b"RELOADING=1")
        server.stop()
    assert "ethws0" not in host.links()


#: What is wrong with a version, and what the log says of it.
BROKEN = {
    "syntax": (("client/reconnect.py", "class Client", "klass Client"), "status 1: SyntaxError: invalid syntax"),
    "import": (("tunnel/session.py", "import gevent", "import gevant"), "Error: No module named 'gevant'"),
    "option": (("cli/options.py", '"--drop"', '"--sift"'), "status 2: no option --drop"),
    "silent": (("__main__.py", 'main(prog_name="etherws")', "pass"), "ends without a word of etherws; is it the right"),
    "older": (("client/kept_port.py", "VERSION = 1", "VERSION = 0"), "its state is of a newer version of etherws"),
}


def test_a_version_that_does_not_start_takes_nothing_over(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    left, right = hosts
    server = left.etherws("server", "--foreground")
    server.says("listening on ws://")
    link(tmp_path, copy(tmp_path, "1.0"))
    client = right.etherws("client", "--foreground", "--drop", "bpdu", "ws://192.0.2.1/", cwd=tmp_path)
    client.says("connected to ws")
    before = facts(right, "ethws0")
    for name, (change, words) in BROKEN.items():
        link(tmp_path, copy(tmp_path, name, change))
        client.signal(signal.SIGUSR2)
        client.says(words)
        assert client.output.count("ERROR no new image takes over, and this one goes on: ") == 1, name
        client.output = client.output.replace("ERROR no new image takes over", "")
    assert not re.search("lost|left", client.output + server.output)
    link(tmp_path, copy(tmp_path, "1.1"))
    client.signal(signal.SIGUSR2)
    client.says("INFO handed over to version 1.1 (was 1.0)")
    client.says("connected to ws", 2)
    assert facts(right, "ethws0") == before


def test_another_command_can_be_named(hosts: tuple[Host, Host], tmp_path: Path) -> None:
    left, right = hosts
    left.etherws("server", "--foreground").says("listening on ws://")
    client = right.etherws("client", "--foreground", "ws://192.0.2.1/", env={"ETHERWS_NEXT": str(tmp_path / "next")})
    client.says("connected to ws")
    before = facts(right, "ethws0")
    script = tmp_path / "etherws-2"
    script.write_text(f'#!/bin/sh\ncd {copy(tmp_path, "2.1")}\nexec {sys.executable} -m etherws "$@"\n')
    script.chmod(0o755)
    (tmp_path / "next").symlink_to(script)
    client.signal(signal.SIGUSR2)
    client.says("INFO handed over to version 2.1 (was ")
    client.says("connected to ws", 2)
    # It passes the rehearsal, and is gone then.
    script.write_text(f'#!/bin/sh\nrm "$0"\nexec {sys.executable} -m etherws "$@"\n')
    client.signal(signal.SIGUSR2)
    client.says(f"ERROR cannot execute {script}: No such file or directory; this image goes on")
    client.says("connected to ws", 3)
    client.signal(signal.SIGUSR2)
    client.says(f"next leads to {script}, which is no program; correct it, or remove it")
    (tmp_path / "next").unlink()
    client.signal(signal.SIGUSR2)
    client.says("INFO handed over to version", 2)
    client.says("connected to ws", 4)
    assert facts(right, "ethws0") == before
    client.stop()
    assert "ethws0" not in right.links()
