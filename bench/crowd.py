"""Starts the clients of load.py in a namespace, and gives them commands: ``with Crowd(lab.a, 1000) as crowd``.

The clients, and what they understand, are described in load.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from select import select
from typing import Any

from bench.lab import VETH, Namespace
from bench.process import ROOT, BenchError
from bench.raw_client import address

#: The program of the clients.
LOAD = str(Path(__file__).with_name("load.py"))
#: Source addresses of the clients, and seconds until all must be up, or a command is answered.
ADDRESSES, LIMIT = 40, 120.0


def give_addresses(namespace: Namespace, count: int = ADDRESSES) -> None:
    """Give the namespace so many addresses outside the tunnels."""
    lines = "".join(f"addr add {address(number)}/24 dev {VETH}\n" for number in range(count))
    batch = namespace.file("addresses")
    batch.write_text(lines)
    namespace.ip("-batch", str(batch))


class Crowd:
    """The clients, until the block ends. `joined` is what load.py says when all are up."""

    def __init__(self, namespace: Namespace, clients: int, *options: str) -> None:
        self.clients = clients
        self._popen = subprocess.Popen(
            namespace.command(sys.executable, LOAD, str(clients), *options),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self.pid = self._popen.pid

    def __enter__(self) -> Crowd:
        try:
            self.joined = self.answer()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe:
                pipe.close()
        self._popen.terminate()
        self._popen.wait()

    def ask(self, command: str, timeout: float = LIMIT) -> dict[str, Any]:
        """Give a command; return the answer. Raises BenchError when none comes within so many seconds."""
        self.tell(command)
        return self.answer(timeout)

    def tell(self, command: str) -> None:
        """Give a command whose answer() is taken later."""
        assert self._popen.stdin
        self._popen.stdin.write(command + "\n")

    def answer(self, timeout: float = LIMIT) -> dict[str, Any]:
        """Return the next answer."""
        assert self._popen.stdout
        if not select([self._popen.stdout], [], [], timeout)[0]:
            raise BenchError(f"load.py: no answer within {timeout:.0f} s")
        if not (line := self._popen.stdout.readline()):
            raise BenchError(f"load.py: ended with status {self._popen.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def measure(self, seconds: float) -> dict[str, Any]:
        """Let them go on for so many seconds; return the report of this time."""
        self.ask("mark")
        time.sleep(seconds)
        return self.ask("report")
