"""The TAP: a network interface whose other end is this process. Packets are read and written in batches.

Creates the device, or takes it over, and moves packets. The event loop never blocks: the descriptor is non-blocking,
and gevent waits. A packet is a frame with its virtio_net_hdr before it (wire.py). A multi-queue device has a Tap for
each queue. Read next: tap_queues.py, tap_device.py, tap_driver.py, tap_carrier.py; kernel/interfaces.py.

Sources: Linux, Documentation/networking/tuntap.rst, drivers/net/tun.c, include/uapi/linux/if_tun.h.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Sequence

import gevent

from etherws.errors import DESCRIPTORS_HINT, DeviceError, DeviceLost
from etherws.kernel import bring_up, interfaces
from etherws.tunnel import tap_device, tap_driver, tap_probe, tap_removal
from etherws.tunnel.device_names import DeviceNames
from etherws.tunnel.fair_turns import EventTurn
from etherws.tunnel.offloads import Offload
from etherws.tunnel.tap_carrier import CarrierTimeout
from etherws.tunnel.tap_device import Address
from etherws.tunnel.tap_queues import Queues
from etherws.tunnel.wire import BATCH_BYTES, Batch, Buffer

log = logging.getLogger(__name__)

#: A file descriptor that is never open: the largest number of a C int.
NO_DESCRIPTOR = 2**31 - 1

#: After a batch of fewer packets the device is probably empty for now.
FEW_PACKETS = 2


class Tap(CarrierTimeout, Queues):
    """One TAP, up and non-blocking. `name` and `index` are those that it had when last looked at: somebody may rename
    it, or move it to another network namespace; see locate()."""

    def __init__(
        self,
        pattern: str = "ethws%d",
        mtu: int | None = None,
        *,
        names: DeviceNames | None = None,
        accept_ra: bool = False,
        address: Address | None = None,
        bridge: int | None = None,
        multi_queue: bool = False,
    ) -> None:
        """Open the first device that fits `pattern`, and set its MTU in bytes if there is one.

        Which names are tried is what `names` says; without it, all in turn.

        A persistent device that no process has open is taken over, and remains after close(); any other is removed by
        close(). Unless `accept_ra` is set, IPv6 gives a device that is made here no address by itself, and believes no
        router advertisement there. `address` chooses its Ethernet address. A device that is made here joins the bridge
        of the index `bridge`, if there is one; with `multi_queue` it can have more queues: see queue(). Raises
        DeviceError.
        """
        self._fd = tap_device.open_device(pattern, names, multi_queue=multi_queue)
        try:
            #: The header that the device had before, for its next owner.
            self.header = tap_driver.set_header(self._fd, pattern)
            self.name, self.index = tap_driver.name_and_index(self._fd)
            self._begin()
            if not self.persistent:
                tap_probe.ask(self._fd)
            mac = address(self.name, persistent=self.persistent) if address else None
            if self.multi_queue and not self.persistent:
                interfaces.forget_queues(self.index)
            into, theirs = (None, True) if self.persistent else (bridge, accept_ra)
            bring_up.set_up(self.index, mtu, autoconfigure=theirs, address=mac, bridge=into)
        except BaseException:
            os.close(self._fd)
            raise

    @classmethod
    def adopt(cls, fd: int, index: int = 0, header: tap_driver.Header | None = None, *, borrowed: bool = False) -> Tap:
        """The TAP of a descriptor that another process of etherws has opened. It belongs to the Tap from now on.

        `index` is the last one that is known, for a device that is in another network namespace now; `header` is that
        process's Tap.header. If it is `borrowed`, or one of several queues, that process keeps the device, its header
        and its offloads, and close() closes only this descriptor. The interface itself is left as it is. Raises
        DeviceError if this is no TAP, or if its interface was deleted; then the descriptor is still the caller's.
        """
        tap = cls.__new__(cls)
        tap._fd = fd
        tap.name, found = tap_driver.tap_of(fd)
        tap.index = found or index
        # A header that this version does not know may be set. Who lends it has set ours, and others may use it now.
        tap.header = tap_driver.OURS if borrowed else tap_driver.set_header(fd, tap.name)
        tap.header = header or tap.header
        tap._begin()
        tap._borrowed = borrowed
        if not borrowed:
            # The process before may have lost the connection of this queue, and not of others.
            tap.attach()
        return tap

    def _begin(self) -> None:
        """The rest of what an object of this class has. The device is open."""
        os.set_blocking(self._fd, False)
        os.set_inheritable(self._fd, False)
        flags = tap_driver.interface(self._fd)[1]
        #: Whether the device was there before, and stays.
        self.persistent = bool(flags & tap_driver.IFF_PERSIST)
        #: Whether it can have more queues.
        self.multi_queue = bool(flags & tap_driver.IFF_MULTI_QUEUE)
        self._borrowed = False
        # Where packets are written: see hold_flows().
        self._out = self._fd
        self.drops: Counter[str] = Counter()
        self._readable = gevent.get_hub().loop.io(self._fd, 1)
        #: The turns of the greenlet that reads.
        self.turn = EventTurn()
        #: Whether read_batch() waits, and no packet has come for so many seconds.
        self.quiet = self.turn.quiet
        super().__init__()

    def fileno(self) -> int:
        """Its descriptor, to be given to another process."""
        return self._fd

    def alive(self) -> bool:
        """Whether the device still exists; somebody may have deleted it."""
        try:
            self.name = tap_driver.interface(self._fd)[0]
        except OSError:
            return False
        return True

    def mtu(self) -> int | None:
        """Its MTU in bytes at this moment: others may change it. None if it is gone, or elsewhere."""
        try:
            index = self.locate()
            return interfaces.mtu_of(index) if index else None
        except DeviceError:
            return None

    def present_name(self) -> str:
        """The device's name now; the last one once it is gone."""
        self.alive()
        return self.name

    def locate(self) -> int | None:
        """The device's present index; None while it is in another network namespace, where its name and index may be
        those of others here. Raises DeviceLost once it is gone, DeviceError if that cannot be told."""
        if not self.alive():
            raise self._lost(OSError(errno.EBADFD, os.strerror(errno.EBADFD)))
        try:
            self.name, index = tap_driver.place(self._fd)
        except OSError as exc:
            hint = f"; {DESCRIPTORS_HINT}" if exc.errno == errno.EMFILE else ""
            raise DeviceError(f"cannot find {self.name}: {exc.strerror}{hint}") from exc
        self.index = index or self.index
        return index

    def begin(self, *, offload: Offload, joining: bool = False) -> None:
        """Prepare for a new session: set the carrier, and the offloads, which are what the peer's kernel does in place
        of this one.

        Drops what waits in the TAP's queue since the last session: frames that are minutes old would mislead. If the
        session is `joining` others that use the device, or goes on with this queue, all of this is left as it is.
        """
        # The last session's have been counted there.
        self.drops = Counter()
        if joining:
            return
        self.alive()
        with contextlib.suppress(OSError):
            tap_driver.attach(self._fd)
        log.debug("%s: offloads %#x", self.name, tap_driver.set_offloads(self._fd, offload))
        tap_driver.empty(self._fd)
        self.stop_carrier_timeout()
        self.carrier(True)

    def read_batch(self, batch: Batch, in_loop: Callable[[], bool] | None = None) -> None:
        """Replace `batch`'s packets by those that wait in the device: one at least, BATCH_BYTES and one packet more at
        most. Blocks this greenlet until there is one.

        With `in_loop`, the event loop calls that when a packet comes after few others. It may carry packets, by
        poll_batch(), and says whether nothing is left to do. If something is, this returns with the batch as that left
        it. Raises DeviceLost once the device is gone, and what `in_loop` raises.
        """
        # After few packets there are probably no more yet: to ask again would cost a system call and an exception. And
        # a sender that never stops must let other connections have their turn.
        if len(batch.spans) < FEW_PACKETS:
            if self.turn.wait(self._readable, in_loop):
                return
        elif self.turn.over():
            self.turn.wait(self._readable)
        while not self.poll_batch(batch):
            self.turn.wait(self._readable)

    def poll_batch(self, batch: Batch, most: int = BATCH_BYTES, *, more: bool = False) -> bool:
        """As read_batch(), but without waiting, and with no more packets once there are `most` bytes; return whether
        there are any packets. With `more` the batch keeps those that it has."""
        fd, view, gap, readv = self._fd, batch.view, batch.GAP, os.readv
        spans = batch.spans if more else []
        end = had = spans[-1][1] if spans else 0
        try:
            while end < most:
                start = end + gap
                end = start + readv(fd, (view[start:],))
                spans.append((start, end))
        except BlockingIOError:
            pass
        except OSError as exc:
            raise self._lost(exc) from exc
        batch.spans = spans
        self.turn.carried += end - had
        return bool(spans)

    def write_batch(self, packets: Sequence[Buffer]) -> None:
        """Give each packet to the kernel. A packet that it refuses is dropped and counted.

        Raises DeviceLost once the device is gone.
        """
        fd, write = self._out, os.write
        for packet in packets:
            try:
                write(fd, packet)
            except OSError as exc:
                if exc.errno == errno.EBADFD:
                    raise self._lost(exc) from exc
                # EIO: the interface is down; EINVAL: the kernel finds the frame invalid; ENOBUFS, EAGAIN: no room.
                self.drops[errno.errorcode.get(exc.errno or 0, "write")] += 1

    def on_readable(self, call: Callable[[], object] | None) -> None:
        """Let the event loop call `call` each time when packets wait; or, with None, no longer."""
        self._readable.start(call) if call else self._readable.stop()

    def stop_waiting(self) -> bool:
        """Let neither on_readable() nor read_batch() see more packets; return whether either waited for some. A
        greenlet in read_batch() then waits for ever: kill it."""
        waited: bool = self._readable.active or self.turn.waiting  # type: ignore[attr-defined]
        self._readable.stop()
        return waited

    def close(self) -> None:
        """Close the device, and remove it unless it is persistent: then its next owner finds it as it was."""
        if (fd := self._fd) == NO_DESCRIPTOR:
            return
        self.release()
        if self._borrowed:
            # Another process has it open: the kernel removes nothing now.
            os.close(fd)
            return
        # The kernel takes tens of milliseconds for either. Other greenlets go on meanwhile.
        if self.persistent:
            tap_driver.put_back(fd, self.header)
            gevent.get_hub().threadpool.apply(os.close, (fd,))
        else:
            tap_removal.remove(fd)

    def release(self) -> None:
        """Use it no longer here; another process has it from now on, or close() follows. The descriptor stays open."""
        self._readable.close()
        self.stop_timer()
        if self._borrowed:
            tap_device.forget_events(self._fd)
        self.let_flows_go()
        # What is still asked of it must not reach the next file of its number.
        self._fd = self._out = NO_DESCRIPTOR

    def _lost(self, exc: OSError) -> DeviceLost:
        return DeviceLost(f"{self.name} is gone: {exc.strerror}; was it deleted?")
