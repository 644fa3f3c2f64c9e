"""What a start gets from its caller: signals that come too early, and a machine without /proc."""

from __future__ import annotations

import subprocess
import sys

import pytest

from etherws.cli.process import inherited
from etherws.errors import DaemonError
from tests.lab.hosts import Host


@pytest.mark.parametrize("number", ["SIGUSR1", "SIGUSR2"])
def test_a_signal_for_a_running_service_does_not_end_its_start(number: str) -> None:
    code = f"""if True:
        import os, signal
        from etherws.cli.process import inherited
        inherited.mend()
        os.kill(os.getpid(), signal.{number})
        print("goes on")
    """
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "goes on\n"


def test_without_proc_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited.need_proc()
    monkeypatch.setattr("os.path.exists", lambda _: False)
    with pytest.raises(DaemonError, match="mount -t proc proc /proc"):
        inherited.need_proc()


@pytest.mark.parametrize("arguments", [["server"], ["client", "ws://192.0.2.1/"]], ids=["server", "client"])
def test_both_commands_need_it(host: Host, arguments: list[str]) -> None:
    host.needs_mounts()
    script = 'mount -t tmpfs none /proc; exec "$@"'
    process = host.run(
        "unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-m", "etherws", *arguments, "--foreground"
    )
    assert process.ends() == 1
    assert process.output == "Error: there is no /proc, which etherws needs; mount it: mount -t proc proc /proc\n"
