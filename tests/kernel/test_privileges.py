"""What a process may still do: as the kernel says, and tried."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from tests.lab.hosts import Host

#: Gives privileges up by the code in its first argument, tries things, goes on as another program, and looks again.
TRIES = """
import ctypes, json, os, pathlib, resource, signal, socket, sys, threading, time
from etherws.cli.process import run_as
from etherws.kernel import privileges
from etherws.cli import user_option
from etherws.errors import EtherwsError
from etherws.kernel import interfaces
from etherws.tunnel import tap
import gevent

def tried(action):
    try:
        action()
    except (OSError, EtherwsError) as exc:
        return getattr(exc, "strerror", None) or str(exc)
    return "done"

libc = ctypes.CDLL(None, use_errno=True)
def called(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def bind():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 79))

def sets(task):
    lines = pathlib.Path(task, "status").read_text().splitlines()
    wanted = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Uid", "Gid", "Groups")
    return {line.split(":")[0]: line.split(":")[1].split() for line in lines if line.startswith(wanted)}

gevent.get_hub().threadpool.apply(int)
exec(sys.argv[1])
found = {
    "threads": [sets(task) for task in pathlib.Path("/proc/self/task").iterdir()],
    "read /etc/shadow": tried(lambda: open("/etc/shadow").close()),
    "write /etc/shadow": tried(lambda: open("/etc/shadow", "r+").close()),
    "read a secret of another's": tried(lambda: open(sys.argv[2]).close()),
    "bind to port 79": tried(bind),
    "open a raw socket": tried(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()),
    "mount": tried(lambda: called("mount", b"none", b"/mnt", b"tmpfs", 0, None)),
    "signal another's process": tried(lambda: os.kill(int(sys.argv[3]), 0)),
    "trace it": tried(lambda: called("ptrace", 16, int(sys.argv[3]), 0, 0)),
    "become root": tried(lambda: os.setresuid(0, 0, 0)) if os.getuid() else "is root",
    "become another": tried(lambda: os.setresuid(77, 77, 77)),
    "chown": tried(lambda: os.chown(sys.argv[4], 77, 77)),
    "set the clock": tried(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
    "dump core": "no" if libc.prctl(3, 0, 0, 0, 0) == 0 else "yes",
    "make a bridge": tried(lambda: interfaces.make_bridge("br-try", autoconfigure=False)),
    "make an interface": tried(lambda: tap.Tap("try0").close()),
}
print(json.dumps(found), flush=True)
os.execvp("grep", ["grep", "-E", "^(Cap|NoNew|Uid)", "/proc/self/status"])
"""

#: The pool makes a thread again.
AGAIN = "\ngevent.get_hub().threadpool.apply(int)"

#: As cli/process/privileged_helper.py: a process of its own, without the pool's threads.
FORK = """
child = os.fork()
if child:
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

NET_ADMIN = "0000000000001000"
NONE = "0000000000000000"

#: What only the user's number, or a capability that is kept, can allow.
ALWAYS_REFUSED = (
    *("write /etc/shadow", "bind to port 79", "open a raw socket", "mount", "trace it", "become another", "chown"),
    *("set the clock", "signal another's process"),
)


def tries(host: Host, folder: Path, code: str) -> tuple[dict[str, object], dict[str, str]]:
    """What the process found, and what the program found that took its place."""
    (folder / "secret").write_text("")
    (folder / "secret").chmod(0o600)
    os.chown(folder / "secret", 77, 77)
    other = host.run("setpriv", "--reuid=77", "--clear-groups", "sleep", "60")
    own = folder / "own"
    own.write_text("")
    process = host.run(sys.executable, "-c", TRIES, code, str(folder / "secret"), str(other.pid), str(own))
    assert process.ends() == 0, process.output
    # The log comes before.
    found, *rest = ("{" + process.output.partition("{")[2]).splitlines()
    after = {line.split(":")[0]: line.split(":")[1].strip() for line in rest}
    return json.loads(found), after


def test_root_keeps_net_admin_alone(host: Host, tmp_path: Path) -> None:
    found, after = tries(host, tmp_path, "run_as.Privileges(None, (), packet_sockets=1).give_up()" + AGAIN)
    for sets in found["threads"]:  # type: ignore[attr-defined]
        assert sets["CapPrm"] == sets["CapEff"] == sets["CapBnd"] == [NET_ADMIN]
        assert sets["CapInh"] == sets["CapAmb"] == [NONE]
        assert sets["NoNewPrivs"] == ["1"]
    refused = {what for what, result in found.items() if result in ("Operation not permitted", "Permission denied")}
    # Root's own files are root's without a capability.
    assert refused == {*ALWAYS_REFUSED, "read a secret of another's"} - {"write /etc/shadow"}
    assert found["read /etc/shadow"] == found["make a bridge"] == found["make an interface"] == "done"
    assert found["dump core"] == "no"
    assert (after["CapPrm"], after["CapEff"], after["NoNewPrivs"]) == (NET_ADMIN, NET_ADMIN, "1")


@pytest.mark.usefixtures("tun_for_all")
def test_another_user_keeps_it_as_well(host: Host, tmp_path: Path) -> None:
    code = "run_as.Privileges(user_option.User('x', 7777, 7778), (), packet_sockets=1).give_up()" + AGAIN
    found, after = tries(host, tmp_path, code)
    for sets in found["threads"]:  # type: ignore[attr-defined]
        assert sets["CapPrm"] == sets["CapEff"] == sets["CapBnd"] == [NET_ADMIN]
        assert sets["CapInh"] == sets["CapAmb"] == [NET_ADMIN]
        assert sets["NoNewPrivs"] == ["1"]
        assert sets["Uid"] == ["7777"] * 4
        assert sets["Gid"] == ["7778"] * 4
        assert sets["Groups"] == []
    refused = {what for what, result in found.items() if result in ("Operation not permitted", "Permission denied")}
    assert refused == {*ALWAYS_REFUSED, "read /etc/shadow", "read a secret of another's", "become root"}
    assert found["make a bridge"] == found["make an interface"] == "done"
    assert found["dump core"] == "no"
    assert (after["CapPrm"], after["CapEff"], after["CapAmb"]) == (NET_ADMIN, NET_ADMIN, NET_ADMIN)
    assert after["Uid"].split() == ["7777"] * 4


def test_who_copies_files_may_read_and_no_more(host: Host, tmp_path: Path) -> None:
    found, _ = tries(host, tmp_path, f"{FORK}\nprivileges.keep_only([privileges.CAP_DAC_READ_SEARCH])")
    assert found["read a secret of another's"] == "done"
    refused = {what for what, result in found.items() if result == "Operation not permitted"}
    assert {*ALWAYS_REFUSED} - {"write /etc/shadow", "bind to port 79"} <= refused
