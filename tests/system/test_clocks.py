"""A clock that is wrong, and jumps: a machine without a battery begins in 1970, until it hears of the time (NTP)."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.lab.hosts import Host, Process, until
from tests.lab.pki import Certificate

#: Where Debian and Fedora have the library. It replaces the clock of one process; the machine's own stays.
LIBRARIES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/lib*/faketime/libfaketimeMT.so.1")

#: Seconds.
YEAR = 365 * 86_400


class Clock:
    """The clock of the processes that have `environ`."""

    def __init__(self, folder: Path) -> None:
        found = next((str(path) for pattern in LIBRARIES for path in Path("/").glob(pattern.lstrip("/"))), None)
        if found is None:
            pytest.skip("no libfaketime on this machine: apt install faketime")
        self._file = folder / "clock"
        self.environ = {
            "LD_PRELOAD": found,
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # Only the time of day jumps.
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def set(self, seconds: float) -> None:
        """From now on it differs from the machine's by so many seconds."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+.0f}\n")
        new.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that has begun in 1970."""
    found = Clock(tmp_path)
    found.set(100 - time.time())
    return found


def carried(process: Process) -> int:
    """The bytes that the session has received, by the log."""
    process.signal(signal.SIGUSR1)
    said = process.output.count(" received ")
    until(lambda: process.output.count(" received ") > said, "the counters")
    return int(re.findall(r" received (\d+)", process.output)[-1])


def goes_on(*processes: Process) -> None:
    """Wait until each of them has heard some pings or pongs."""
    for process in processes:
        before = carried(process)
        until(lambda process=process, before=before: carried(process) > before + 30, "pings and pongs")  # type: ignore[misc]


def test_a_clock_that_jumps_disturbs_nothing_but_certificates(
    hosts: tuple[Host, Host], clock: Clock, certificate: Certificate
) -> None:
    left, right = hosts
    quick = ["--ping-interval", "0.2s", "--ping-timeout", "2s", "--carrier-timeout", "1s"]
    files = ["--keyfile", str(certificate.key), "--certfile", str(certificate.cert)]
    server = left.etherws("server", "--foreground", *files, *quick, env=clock.environ)
    server.says("INFO ethws0 is up, listening on wss://")
    uri = ["wss://192.0.2.1/", "--cacert", str(certificate.cert), "--max-retry-interval", "0.5s"]
    client = right.etherws("client", "--foreground", *uri, *quick, env=clock.environ)
    client.says("or this machine's clock is wrong: it says 1970-01-01")
    # The time of day comes.
    clock.set(0)
    client.says("INFO ethws0 is up, connected to wss://192.0.2.1")
    for jump in (0, 50 * YEAR, 50 * YEAR - 3600, -3600):
        clock.set(jump)
        goes_on(client, server)
    assert "lost" not in client.output
    assert "left" not in server.output
    # A client that comes back gets its port, whatever the clock has done meanwhile.
    clock.set(0)
    client.signal(signal.SIGUSR2)
    client.says("connected to wss://192.0.2.1", 2)
    assert server.says("joined on ethws0", 2).count("joined on") == 2
