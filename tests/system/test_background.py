"""The process in the background, whatever started it: what it keeps, what it leaves, and what its start says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etherws.access import passwd
from tests.lab.hosts import Host, Process, until
from tests.lab.pki import Certificate

#: A start as ssh, cron and scripts do it: no standard descriptors, a locked file and a pipe open, signals ignored and
#: blocked, a narrow umask.
START = """
import fcntl, os, signal, sys
lock = os.open("lock", os.O_CREAT | os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
for descriptor in (lock, *os.pipe()):
    os.set_inheritable(descriptor, True)
    os.dup2(descriptor, descriptor + 20)
for number in (signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])
os.umask(0o077)
for descriptor in (0, 1, 2):
    os.close(descriptor)
os.execv(sys.executable, [sys.executable, "-m", "etherws", *sys.argv[1:]])
"""


def pid_in(path: Path) -> int:
    """The process ID in a file."""
    return int(path.read_text())


def ended(pid: int) -> bool:
    """Whether the process has ended, perhaps without a parent that asks for its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def end(pid: int) -> None:
    """End a process by SIGTERM."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    until(lambda: ended(pid), f"process {pid} to end", 8)


def make_token(folder: Path, name: str) -> None:
    """Add a token to the folder's file "tokens", and write it to a file of its name."""

    def write(token: str) -> None:
        (folder / name).write_text(token)

    passwd.add_token(str(folder / "tokens"), name, write)


Start = Callable[..., Process]


@pytest.fixture
def start(host: Host, tmp_path: Path) -> Iterator[Start]:
    """Starts etherws in the background, in the test's folder, with a PID file "pid"; ends it with the test."""

    def started(*arguments: str, **options: object) -> Process:
        return host.etherws(*arguments, "--pidfile", "pid", cwd=tmp_path, **options)

    yield started
    if (tmp_path / "pid").exists():
        end(pid_in(tmp_path / "pid"))


def test_it_keeps_nothing_of_its_caller(host: Host, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", START, "server", "--port", "0", "--pidfile", "pid"]
    process = host.run(*argv, cwd=tmp_path)
    assert process.ends() == 0
    assert process.output == ""
    pid = pid_in(tmp_path / "pid")
    try:
        descriptors = {name: os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
        assert [descriptors.pop(name) for name in "012"] == ["/dev/null"] * 3
        assert not any("lock" in name or "pipe:" in name for name in descriptors.values())
        assert os.readlink(f"/proc/{pid}/cwd") == "/"
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        assert status["Umask"] == "0022"
        assert int(status["SigBlk"], 16) == 0
        ignored = int(status["SigIgn"], 16)
        assert not ignored >> (signal.SIGCHLD - 1) & 1
    finally:
        end(pid)
    assert "ethws0" not in host.links()


def test_the_status_is_0_if_it_runs_even_if_nobody_can_be_told(host: Host, tmp_path: Path) -> None:
    line = f"{sys.executable} -m etherws client -k wss://127.0.0.1:9/ --pidfile pid > /dev/full 2>&1"
    process = host.run("sh", "-c", line, cwd=tmp_path)
    assert process.ends() == 0, process.output
    end(pid_in(tmp_path / "pid"))


def test_a_start_that_is_interrupted_leaves_nothing(host: Host, start: Start, tmp_path: Path) -> None:
    process = start("client", "ws://127.0.0.1:9/", "--wait")
    process.says("cannot connect to ws://127.0.0.1:9")
    pid = pid_in(tmp_path / "pid")
    process.signal(signal.SIGTERM)
    assert process.ends() == -signal.SIGTERM
    until(lambda: ended(pid), "the process in the background to end")
    assert "the command that started this process was ended before its time" in process.output
    assert "ethws0" not in host.links()
    assert not (tmp_path / "pid").exists()


def test_relative_names_count_after_a_loss(host: Host, start: Start, tmp_path: Path, certificate: Certificate) -> None:
    make_token(tmp_path, "branch1")
    (tmp_path / "ca.crt").symlink_to(certificate.cert)
    tls = ["--keyfile", str(certificate.key), "--certfile", str(certificate.cert), "--token-file", "tokens"]

    def serve() -> Process:
        server = host.etherws("server", "--foreground", "--device", "lan0", *tls, cwd=tmp_path)
        server.says("listening")
        return server

    server = serve()
    # The system's authorities, too, may be in a relative file.
    arguments = ["client", "wss://localhost/", "--token-file", "branch1", "--max-retry-interval", "0.5s"]
    process = start(*arguments, "--wait", env={"SSL_CERT_FILE": "ca.crt"})
    assert process.ends() == 0, process.output
    server.stop()
    serve().says("as 'branch1' joined on lan0")


def test_a_server_by_relative_names_sees_its_files_change(host: Host, start: Start, tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_token(tmp_path, name)
    process = start("server", "--token-file", "tokens", "--device", "lan0")
    assert process.ends() == 0
    # How to stop it and where its log is come behind what 0.2 printed.
    *_, first, second = process.output.splitlines()
    assert first == "lan0 is up, listening on ws://*:80/"
    assert second.startswith(f"stop it: kill {pid_in(tmp_path / 'pid')}; ")
    assert "its log: " in second or "nothing is logged: no syslog daemon listens on /dev/log" in second
    client = host.etherws("client", "--foreground", "ws://127.0.0.1/", "--token-file", str(tmp_path / "one"))
    client.says("connected")
    passwd.remove(str(tmp_path / "tokens"), "one")
    client.says("lost ws://127.0.0.1")


def test_the_statuses_of_a_start_that_waits(host: Host, start: Start, tmp_path: Path) -> None:
    process = start("client", "ws://127.0.0.1/", "--wait=0.5", "--max-retry-interval", "0.5s")
    assert process.ends() == 75
    assert "not connected within 0.5 s: " in process.output
    # It goes on, and connects.
    server = host.etherws("server", "--foreground", "--device", "lan0")
    server.says("joined on lan0")
    end(pid_in(tmp_path / "pid"))
    server.says("left lan0")
    process = start("client", "--wait", "ws://127.0.0.1/")
    assert process.ends() == 0
    assert process.output.startswith("ethws0 is up, connected to ws://127.0.0.1:80\n")
    end(pid_in(tmp_path / "pid"))
    server.stop()
    assert start("client", "--wait", "--device", "lo", "ws://127.0.0.1/").ends() == 1


def test_a_start_that_is_refused_says_so_and_goes_on(host: Host, start: Start, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("")
    host.etherws("server", "--foreground", "--device", "lan0", "--token-file", str(tmp_path / "tokens")).says("listen")
    process = start("client", "--wait", "ws://127.0.0.1/")
    assert process.ends() == 77
    assert "answered 401 Unauthorized" in process.output
    assert (tmp_path / "pid").exists()


def test_systemd_hears_of_a_client_that_waits_when_it_is_connected(host: Host, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        env = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        client = host.etherws("client", "ws://127.0.0.1/", "--wait=0.1", "--max-retry-interval", "0.5s", env=env)
        client.says("WARNING not connected within 0.1 s")
        notify.settimeout(20)
        assert notify.recv(1000).startswith(b"STATUS=not connected within 0.1 s: ")
        host.etherws("server", "--foreground", "--device", "lan0").says("listening")
        client.says("INFO ethws0 is up, connected to ws://127.0.0.1:80")
        assert notify.recv(1000).startswith(b"READY=1\n")


def test_signals_log_counters_and_end_nothing(host: Host) -> None:
    server = host.etherws("server", "--foreground", "--device", "lan0")
    server.says("listening")
    server.signal(signal.SIGUSR1)
    server.says("INFO 0 sessions")
    client = host.etherws("client", "--foreground", "ws://127.0.0.1/")
    client.says("connected")
    server.says("joined on lan0")
    for process, words in ((server, "INFO 127.0.0.1 on lan0 for "), (client, "INFO connected to ws://127.")):
        process.signal(signal.SIGUSR1)
        assert re.search(r" for \d+ s; sent \d+ bytes, received \d+", process.says(words))
    client.signal(signal.SIGQUIT)
    assert client.ends(8) == 0
    assert re.search(r"INFO left ws://127.0.0.1:80 after \d+ s; sent \d+ bytes, received \d+", client.output)
    left = server.says("left lan0 after").splitlines()[-1]
    assert re.search(r"after \d+ s: closed by the peer, code 1001.*; sent \d+ bytes, received \d+", left)
    client = host.etherws("client", "--foreground", "ws://127.0.0.1:9/")
    client.says("cannot connect")
    client.signal(signal.SIGUSR1)
    client.says("INFO not connected; trying again")
    assert client.running


@pytest.mark.vm_too
def test_a_full_disk_leaves_no_file_and_nothing_that_runs(host: Host, tmp_path: Path) -> None:
    host.needs_mounts()
    full = tmp_path / "full"
    full.mkdir()
    code = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None); assert libc.unshare(0x20000) == 0;"
        "libc.mount(b'none', b'/', None, 0x44000, None);"
        f"assert libc.mount(b'none', {os.fsencode(full)!r}, b'tmpfs', 0, sys.argv[1].encode()) == 0;"
        f"open({str(full / 'data')!r}, 'wb').write(bytes(4096));"
        "argv = [sys.executable, '-m', 'etherws', 'server', '--port', '0', *sys.argv[2:]];"
        f"print('status', os.spawnv(os.P_WAIT, sys.executable, argv), os.listdir({str(full)!r}), flush=True)"
    )
    # No room for a byte; then no room for a file.
    process = host.run(sys.executable, "-c", code, "size=4k", "--pidfile", f"{full}/pid")
    process.says("status 1 ['data']")
    words = f"Error: cannot write --pidfile {full}/pid: No space left on device; name another, such as one in /run\n"
    assert words in process.output
    process = host.run(sys.executable, "-c", code, "nr_inodes=2", "--address", f"unix:{full}/sock")
    process.says("status 1 ['data']")
    assert "sock: No space left on device; choose a folder in which files can be made" in process.output
    assert "Traceback" not in process.output
    assert "ethws0" not in host.links()
