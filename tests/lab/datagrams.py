"""Flows of numbered datagrams through a tunnel, there and back: which are lost, and which come out of their order."""

from __future__ import annotations

import select
import socket
import threading

from tests.lab.hosts import PATIENCE, Host, until

#: Seconds between two datagrams of a flow. A hundred a second show a gap of a moment, and cost little.
PAUSE = 0.01


class Flows:
    """`count` flows by UDP from one machine to an address of the other, which sends each datagram back."""

    def __init__(self, one: Host, other: Host, address: str, count: int) -> None:
        self._far = other.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._far.bind((address, 0))
        self._far.setblocking(False)
        self._near = [one.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
        for each in self._near:
            each.setblocking(False)
            each.connect(self._far.getsockname())
        #: The number of datagrams that each flow has sent.
        self.sent = 0
        #: The numbers that have come, in their order: to the other machine, by the sender's port, and back.
        self.there: dict[int, list[int]] = {each.getsockname()[1]: [] for each in self._near}
        self.back: dict[int, list[int]] = {each.getsockname()[1]: [] for each in self._near}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(PAUSE):
            for each in self._near:
                each.send(self.sent.to_bytes(4, "big"))
            self.sent += 1
            self._receive(0)

    def _receive(self, wait: float) -> bool:
        ready, _, _ = select.select([self._far, *self._near], [], [], wait)
        for each in ready:
            # What is there, and no more: the other end must have its turn.
            for _ in range(len(self._near)):
                try:
                    data, sender = each.recvfrom(4)
                except BlockingIOError:
                    break
                number = int.from_bytes(data, "big")
                if each is self._far:
                    self.there[sender[1]].append(number)
                    each.sendto(data, sender)
                else:
                    self.back[each.getsockname()[1]].append(number)
        return bool(ready)

    def go_on(self, datagrams: int = 20) -> None:
        """Wait until so many more have been sent, and all flows work."""
        goal = self.sent + datagrams
        until(lambda: all(came and came[-1] >= goal for came in self.back.values()), "the flows to go on")

    def finish(self) -> None:
        """Send no more, and wait for what is on its way."""
        self._over.set()
        self._thread.join(PATIENCE)
        while self._receive(0.5):
            pass

    def lost(self) -> dict[int, int]:
        """How many datagrams of each flow did not come back."""
        return {port: self.sent - len(came) for port, came in self.back.items()}

    def disordered(self) -> list[int]:
        """The flows in which a datagram came before an earlier one, there or back."""
        return [port for way in (self.there, self.back) for port, came in way.items() if came != sorted(came)]
