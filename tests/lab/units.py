"""The units of contrib/, as a user installs them, and systemctl(1) and journalctl(1): for tests of mark ``vm``, on a
machine whose PID 1 is systemd. They act in the machine's own network namespace."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.lab.hosts import PATIENCE, until

CONTRIB = Path(__file__).resolve().parents[2] / "contrib"
INSTALLED, OPTIONS = Path("/etc/systemd/system"), Path("/etc/default")


def run(*argv: str) -> str:
    """What a command prints that runs in the machine's network namespace; fails unless its exit status is 0."""
    # Other tests of this run may have put this process into one of its own.
    command = ["nsenter", "--target=1", "--net", *argv]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


class Unit:
    """One of the two units: its instance ``test``."""

    def __init__(self, role: str) -> None:
        self.role, self.name = role, f"etherws-{role}@test.service"
        self._invocation = ""

    def options(self, **values: str) -> None:
        """Write the file of its options."""
        lines = (f"ETHERWS_{self.role.upper()}_{name.upper()}={value}\n" for name, value in values.items())
        (OPTIONS / f"etherws-{self.role}-test").write_text("".join(lines))

    def do(self, verb: str, *options: str) -> None:
        """Such as ``systemctl start``."""
        run("systemctl", *options, verb, self.name)

    def property(self, name: str) -> str:
        """What ``systemctl show`` says."""
        return run("systemctl", "show", "--value", f"--property={name}", self.name).strip()

    def log(self, *options: str) -> list[str]:
        """The lines of its last start in the journal: each as it was sent, without what journald adds."""
        # systemd forgets it some time after the end.
        self._invocation = self.property("InvocationID") or self._invocation
        found = run("journalctl", "--quiet", "--output=cat", *options, f"_SYSTEMD_INVOCATION_ID={self._invocation}")
        return found.splitlines()

    def says(self, text: str, *options: str) -> None:
        """Wait until the journal has it, in lines that these options of journalctl choose."""
        until(lambda: any(text in line for line in self.log(*options)), lambda: f"{text!r} in {self.log(*options)}")

    def is_in(self, state: str) -> None:
        """Wait until it is ``active``, ``activating`` and so on."""
        until(lambda: self.property("ActiveState") == state, lambda: f"{self.name} to be {state}: {self.log()}")


@contextlib.contextmanager
def installed() -> Iterator[tuple[Unit, Unit]]:
    """Both units, the server's and the client's, enabled but not started. At the end they are gone."""
    units = Unit("server"), Unit("client")
    for unit in units:
        shutil.copy(CONTRIB / f"etherws-{unit.role}@.service", INSTALLED)
        unit.options()
    run("systemctl", "daemon-reload")
    try:
        for unit in units:
            unit.do("enable", "--quiet")
        yield units
    finally:
        for unit in units:
            unit.do("disable", "--quiet", "--now")
            (INSTALLED / f"etherws-{unit.role}@.service").unlink()
            (OPTIONS / f"etherws-{unit.role}-test").unlink()
        run("systemctl", "daemon-reload")


def links() -> dict[str, dict[str, object]]:
    """The machine's interfaces by name, as ip(8) shows them."""
    return {link["ifname"]: link for link in json.loads(run("ip", "-json", "-details", "address", "show"))}
