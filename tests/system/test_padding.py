"""Padding over a long path: each end fills TCP's window before the first frame is in a hurry, unless one has it off."""

from __future__ import annotations

import re
import sys

import pytest

from bench.lab import OUTER_B, Lab
from bench.process import Process, wait_until
from bench.raw_client import PORT
from bench.tunnel import tunnel

#: The path is emulated by a process, which needs a processor at the right time.
pytestmark = pytest.mark.xdist_group("bench")

#: What the log of an end says of its padding.
SENT = re.compile(r"sent (\d+) bytes of padding: ")


def carried(server: Process, clients: int) -> int:
    """How many bytes the last one of so many clients, which have left, had sent and received."""
    wait_until(lambda: server.so_far().count(" left ethws0") == clients, "a client to leave")
    return sum(map(int, re.findall(r"; sent (\d+) bytes, received (\d+)", server.so_far())[-1]))


def test_a_long_path_is_filled_once_from_both_ends(root: None) -> None:
    with (
        Lab() as lab,
        lab.path("--delay", "10", "--rate", "100", "--buffer", "50"),
        tunnel(lab, 0, ["--debug"], ["--debug"]) as (server, client),
    ):
        wait_until(lambda: SENT.search(server.so_far()) is not None, "the server's padding")
        wait_until(lambda: SENT.search(client.so_far()) is not None, "the client's padding")
        client.stop()
        sent = [int(SENT.findall(each.so_far())[0]) for each in (server, client)]
        # On a busy machine the path becomes slow, which ends it before all was sent.
        assert min(sent) >= 8 * 1000
        assert carried(server, 1) > sum(sent)
        command = [sys.executable, "-m", "etherws", "client", "--foreground", f"ws://{OUTER_B}:{PORT}/"]
        with lab.a.running(*command, "--debug", "--no-padding") as other:
            wait_until(lambda: other.check() and "connected" in other.so_far(), "the client to connect")
        assert carried(server, 2) < 8 * 1000
        assert len(SENT.findall(server.so_far())) == 1
        assert not SENT.search(other.so_far())
