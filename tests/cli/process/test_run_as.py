"""A server and a client that give up what they do not need: whole processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from etherws.access.passwd import set_password
from tests.lab.hosts import Host, Process, until
from tests.lab.peer import asked
from tests.lab.pki import Authority

NET_ADMIN = "0000000000001000"


def status(pid: int, name: str) -> str:
    """A value that the kernel shows of a process."""
    found = re.search(rf"^{name}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return found[1]


def children(pid: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    """Whether the process has ended."""
    try:
        return status(pid, "State").startswith("Z")
    except FileNotFoundError:
        return True


def copies_of(child: int) -> Path:
    """The folder that the child of root's has."""
    found = list(Path("/run").glob(f"etherws-{status(child, 'PPid')}-*"))
    return found[0] if found else Path("/nowhere")


@pytest.fixture
def htpasswd(tmp_path: Path) -> Path:
    """A file that only root may read."""
    path = tmp_path / "htpasswd"
    set_password(str(path), "alice", "one", cost=4)
    path.chmod(0o600)
    return path


def as_nobody(host: Host, *options: str) -> Process:
    """A server that runs as nobody, ready."""
    process = host.etherws("server", "--foreground", "--port", "99", "--run-as", "nobody", *options)
    process.says("listening on")
    return process


def test_its_secrets_are_read_again(host: Host, htpasswd: Path, tmp_path: Path) -> None:
    """A password that changes counts, and clients that come and go find their ports, as for root."""
    pidfile = Path("/run") / f"etherws-test-{os.getpid()}.pid"
    server = as_nobody(host, "--htpasswd", str(htpasswd), "--pidfile", str(pidfile), "--bridge", "br0")
    server.says("runs as nobody from now on, with CAP_NET_ADMIN")
    assert status(server.pid, "Uid").split() == ["65534"] * 4
    (child,) = children(server.pid)
    assert (status(child, "Uid").split()[0], status(child, "CapPrm")) == ("0", "0000000000000004")
    # No descriptor of the parent's, and none that would keep a TAP.
    assert len(os.listdir(f"/proc/{child}/fd")) == 4

    first = host.etherws("client", "--foreground", "ws://alice:one@127.0.0.1:99/", "--device", "first")
    first.says("connected to")
    second = host.etherws("client", "--foreground", "ws://alice:two@127.0.0.1:99/", "--device", "second")
    second.says("401")
    set_password(str(htpasswd), "alice", "two", cost=4)
    server.signal(signal.SIGHUP)
    # The first time was when the copy took the place of the file.
    server.says("read again", times=2)
    second.signal(signal.SIGHUP)
    second.says("connected to")
    first.says("lost ws")

    # It may not remove its PID file; the child does, when it has ended.
    assert pidfile.read_text().strip() == str(server.pid)
    server.stop()
    until(lambda: gone(child), "the child to end")
    assert not pidfile.exists()
    assert "not permitted" not in server.output.replace("setuid", "")


def test_it_ends_with_its_parent_however_that_ends(host: Host, htpasswd: Path, tmp_path: Path) -> None:
    place = tmp_path / "sockets"
    place.mkdir()
    server = host.etherws(
        *("server", "--foreground", "--address", f"unix:{place}/s", "--run-as", "nobody", "--htpasswd", str(htpasswd))
    )
    server.says("listening on")
    (child,) = children(server.pid)
    # A signal for the whole group does not end it sooner.
    os.kill(child, signal.SIGTERM)
    os.kill(child, signal.SIGINT)
    (folder,) = Path("/run").glob(f"etherws-{server.pid}-*")
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o640]
    server.signal(signal.SIGKILL)
    server.ends()
    until(lambda: gone(child), "the child to end")
    assert not folder.exists()
    assert not (place / "s").exists()


def test_the_end_of_the_child_is_said(host: Host, htpasswd: Path) -> None:
    server = as_nobody(host, "--htpasswd", str(htpasswd))
    os.kill(children(server.pid)[0], signal.SIGKILL)
    server.says("the process that copies root's files has ended")
    (folder,) = Path("/run").glob(f"etherws-{server.pid}-*")
    assert list(folder.iterdir())
    server.stop()
    # Nobody is left who could remove the copies: the next start does, and leaves those of others alone.
    kept = Path(tempfile.mkdtemp(prefix=f"etherws-{os.getpid()}-", dir="/run"))
    as_nobody(host, "--htpasswd", str(htpasswd)).stop()
    assert not folder.exists()
    kept.rmdir()


def test_a_client_reads_its_secrets_again(host: Host, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.issue()
    server = host.etherws("server", "--foreground", "--certfile", str(pair.cert), "--keyfile", str(pair.key))
    server.says("listening on")
    store = tmp_path / "store"
    store.mkdir(mode=0o700)
    client = host.etherws(
        *("client", "--foreground", "wss://localhost/", "--run-as", "nobody", "--cacert", str(store / "ca.pem")),
        *("--retry-interval", "0.1s"),
    )
    assert client.ends() == 1
    (store / "ca.pem").write_bytes(Authority(tmp_path, "other").cert.read_bytes())
    client = host.etherws(
        *("client", "--foreground", "wss://localhost/", "--run-as", "nobody", "--cacert", str(store / "ca.pem")),
        *("--retry-interval", "0.1s", "--device", "again"),
    )
    client.says("retrying")
    (store / "ca.pem").write_bytes(authority.cert.read_bytes())
    client.says("connected to wss://localhost")
    client.stop()
    server.stop()


@pytest.mark.usefixtures("tun_for_all")
def test_who_may_not_become_another_is_told(host: Host) -> None:
    # What is imported later, this user might not be able to read.
    code = (
        "import os; from etherws.cli import main, observing; from etherws.server import application, serve;"
        "import encodings.idna;"
        "os.setresuid(77, 77, 77); main()"
    )
    process = host.run(sys.executable, "-c", code, "server", "--foreground", "--port", "9999", "--run-as", "nobody")
    assert process.ends() == 1
    # Without CAP_NET_ADMIN it may not make a TAP either, and that comes first.
    assert "CAP_NET_ADMIN" in process.output


def test_files_that_root_alone_cannot_read_are_told(host: Host, htpasswd: Path) -> None:
    os.chown(htpasswd, 77, 77)
    server = host.etherws("server", "--foreground", "--htpasswd", str(htpasswd))
    server.says(f"{htpasswd} cannot be read again while etherws runs (Permission denied): chown root")
    server.stop()


def test_a_second_process_on_the_same_device_is_told_apart(host: Host) -> None:
    server = host.etherws("server", "--foreground", "--device", "lan0")
    server.says("listening")
    other = host.etherws("server", "--foreground", "--device", "lan0", "--port", "81")
    assert other.ends() == 1
    assert f"(process {server.pid}) has it; stop that" in other.output
    server.stop()


def test_no_core_is_dumped(host: Host) -> None:
    server = host.etherws("server", "--foreground")
    server.says("listening")
    # Only root may look into it: proc(5), PR_SET_DUMPABLE.
    done = subprocess.run(["setpriv", "--reuid=77", "cat", f"/proc/{server.pid}/environ"], capture_output=True)
    assert done.returncode != 0
    assert asked(host)[0]
    server.stop()
