"""The queues of a multi-queue TAP: one for each connection of a link. A Tap is one of them.

The kernel chooses the queue for what goes to the peer, by flow. Read next: tap.py; client/members.py and
server/members.py, which have the connections.

Source: Linux, Documentation/networking/tuntap.rst ("Multiqueue tuntap interface"), drivers/net/tun.c.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

from etherws.errors import DESCRIPTORS_HINT, DeviceError, DeviceLost
from etherws.tunnel import tap_device, tap_driver

if TYPE_CHECKING:
    from etherws.tunnel.tap import Tap


class Queues:
    """What a Tap can do with its own queue and with further ones."""

    name: str
    index: int
    multi_queue: bool
    header: tap_driver.Header
    _fd: int
    # Where packets are written: see hold_flows().
    _out: int

    if TYPE_CHECKING:

        @classmethod
        def adopt(
            cls, fd: int, index: int = 0, header: tap_driver.Header | None = None, *, borrowed: bool = False
        ) -> Tap: ...

        def locate(self) -> int | None: ...

    def queue(self) -> Tap:
        """One more queue of this multi-queue device, attached. It has its own descriptor, watcher and drops, and its
        close() removes nothing while there is another queue. Raises DeviceError."""
        if not self.multi_queue:
            raise DeviceError(f"{self.name} can have one queue only; make it with 'multi_queue' for more")
        index = self.locate()
        if index is None:
            raise DeviceError(f"{self.name} is in another network namespace, where no further queue can be opened")
        fd = tap_device.open_queue(self.name, index)
        try:
            return self.adopt(fd, index, self.header, borrowed=True)
        except DeviceError:
            os.close(fd)
            raise

    def again(self, spare: int | None = None) -> Tap:
        """One more Tap of this queue, which is closed by itself. With `spare` its flows are held, see hold_flows();
        that descriptor stays the caller's. Raises DeviceError; then nothing more is open than before."""
        fds = list[int]()
        try:
            with contextlib.ExitStack() as opened:
                for fd in (self._fd, spare):
                    if fd is not None:
                        fds.append(os.dup(fd))
                        opened.callback(os.close, fds[-1])
                tap = self.adopt(fds[0], self.index, borrowed=True)
                opened.pop_all()
        except OSError as exc:
            hint = f"; {DESCRIPTORS_HINT}" if exc.errno == errno.EMFILE else ""
            raise DeviceError(f"cannot open {self.name} once more: {exc.strerror}{hint}") from exc
        for fd in fds[1:]:
            tap.hold_flows(fd)
        return tap

    def detach(self) -> int:
        """Have the kernel give this queue no more packets: other queues get them. Return how many packets waited here,
        which are lost. Nothing happens if it is detached already, or gone, or the device's only one."""
        return tap_driver.detach(self._fd)

    def attach(self) -> None:
        """Have the kernel give this queue packets again after detach(). Raises DeviceLost once the device is gone."""
        try:
            tap_driver.attach(self._fd)
        except OSError as exc:
            raise DeviceLost(f"{self.name} is gone: {exc.strerror}; was it deleted?") from exc

    def spare_queue(self) -> int:
        """A descriptor of one more queue, which is detached: for hold_flows() of all queues of the device. It is the
        caller's. To be opened before there is traffic: a packet may be lost in it. Raises DeviceError."""
        queue = self.queue()
        queue.detach()
        fd = queue.fileno()
        queue.release()
        return fd

    def hold_flows(self, spare: int) -> None:
        """Have each flow stay on one queue: the kernel's hash alone chooses it, as long as the queues are the same.
        `spare` is a descriptor of spare_queue(), in another process too; it belongs to the Tap from now on.

        Else the kernel sends a flow by the queue on which its packets were written last (tun_flow_update). If both ends
        send at once by different queues, each moves to the other's, again and again. The kernel learns nothing from
        what is written on a queue that is detached.
        """
        self.let_flows_go()
        self._out = spare

    def let_flows_go(self) -> None:
        """Undo hold_flows()."""
        if self._out != self._fd:
            os.close(self._out)
            self._out = self._fd

    def descriptors(self) -> tuple[int, ...]:
        """What another process needs to use this queue as it is used here."""
        return (self._fd,) if self._out == self._fd else (self._fd, self._out)
