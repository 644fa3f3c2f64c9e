"""The TAP: a network interface whose other end is this process. Packets are read and written in batches.

Creates the device, or takes it over, and moves packets. The event loop never blocks: the descriptor is non-blocking,
and gevent waits. A packet is a frame with its virtio_net_hdr before it (wire.py). Read next: tap_device.py,
tap_driver.py; kernel/interfaces.py, which speaks netlink.

Sources: Linux, Documentation/networking/tuntap.rst, drivers/net/tun.c, include/uapi/linux/if_tun.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import struct
from collections import Counter
from collections.abc import Callable, Container, Sequence
from time import monotonic
from typing import Protocol

import gevent

from etherws.errors import DESCRIPTORS_HINT, DeviceError, DeviceLost
from etherws.kernel import interfaces
from etherws.tunnel import tap_device, tap_driver
from etherws.tunnel.scheduling import TURN_SECONDS
from etherws.tunnel.tap_device import open_device
from etherws.tunnel.wire import BATCH_BYTES, Batch, Buffer

log = logging.getLogger(__name__)

#: include/uapi/linux/if_tun.h
TUNSETCARRIER = 0x400454E2

#: A file descriptor that is never open: the largest number of a C int.
NO_DESCRIPTOR = 2**31 - 1

#: After a batch of fewer packets the device is probably empty for now.
FEW_PACKETS = 2


class Address(Protocol):
    """Chooses an Ethernet address: see kernel/mac.py."""

    def __call__(self, name: str, *, persistent: bool) -> str | None:
        """The address for the interface of this name; None leaves it as it is."""


class Tap:
    """One TAP, up and non-blocking. `name` and `index` are those that it had when last looked at: somebody may rename
    it, or move it to another network namespace; see locate()."""

    def __init__(
        self,
        pattern: str = "ethws%d",
        mtu: int | None = None,
        *,
        taken: Container[str] = frozenset(),
        accept_ra: bool = False,
        address: Address | None = None,
    ) -> None:
        """Open the first device that fits `pattern`, and set its MTU in bytes if there is one.

        Names in `taken` are not tried: to try a thousand names in vain costs more time than all the rest.

        A persistent device that no process has open is taken over, and remains after close(); any other is removed by
        close(). Unless `accept_ra` is set, IPv6 gives a device that is made here no address by itself, and believes no
        router advertisement there. `address` chooses its Ethernet address. Raises DeviceError.
        """
        self._fd = open_device(pattern, taken)
        try:
            #: The header that the device had before, for its next owner.
            self.header = tap_driver.set_header(self._fd, pattern)
            self.name, self.index = tap_driver.name_and_index(self._fd)
            self._begin()
            mac = address(self.name, persistent=self.persistent) if address else None
            interfaces.set_up(self.index, mtu, autoconfigure=self.persistent or accept_ra, address=mac)
        except BaseException:
            os.close(self._fd)
            raise

    @classmethod
    def adopt(cls, fd: int, index: int = 0, header: tap_driver.Header | None = None, *, borrowed: bool = False) -> Tap:
        """The TAP of a descriptor that another process of etherws has opened. It belongs to the Tap from now on.

        `index` is the last one that is known, for a device that is in another network namespace now; `header` is that
        process's Tap.header. If it is `borrowed`, that process keeps the device, and close() closes only this
        descriptor. The interface itself is left as it is. Raises DeviceError if this is no TAP, or if its
        interface was deleted; then the descriptor is still the caller's, and open.
        """
        tap = cls.__new__(cls)
        tap._fd = fd
        try:
            tap.name, flags = tap_driver.interface(fd)
            if not flags & tap_driver.IFF_TAP:
                raise DeviceError(f"{tap.name} is no TAP")
            tap.name, found = tap_driver.place(fd)
        except OSError as exc:
            raise DeviceError(f"descriptor {fd} is no interface that exists: {exc.strerror}") from exc
        tap.index = found or index
        # A header that this version does not know may be set.
        tap.header = tap_driver.set_header(fd, tap.name)
        tap.header = header or tap.header
        tap._begin()
        tap._borrowed = borrowed
        return tap

    def _begin(self) -> None:
        """The rest of what an object of this class has. The device is open."""
        os.set_blocking(self._fd, False)
        os.set_inheritable(self._fd, False)
        #: Whether the device was there before, and stays.
        self.persistent = bool(tap_driver.interface(self._fd)[1] & tap_driver.IFF_PERSIST)
        self._borrowed = False
        self.drops: Counter[str] = Counter()
        self._readable = gevent.get_hub().loop.io(self._fd, 1)
        self._waited = 0.0
        #: Since when there is no session, by monotonic(); None while there is one.
        self.unconnected_since: float | None = None
        #: Switches the carrier off later; see start_carrier_timeout().
        self._carrier_timer: gevent.Greenlet[..., None] | None = None

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

    def begin(self, *, offload: bool) -> None:
        """Prepare for a new session: set the offloads and the carrier. With `offload` the peer's kernel fills in
        checksums and cuts super-frames; without, this kernel does.

        Drops what waits in the TAP's queue since the last session: frames that are minutes old would mislead.
        """
        self.alive()
        log.debug("%s: offloads %#x", self.name, tap_driver.set_offloads(self._fd, offload=offload))
        for _ in range(10_000):
            try:
                os.read(self._fd, 1)
            except OSError:
                break
        self.drops.clear()
        self.stop_carrier_timeout()
        self.carrier(True)

    def start_carrier_timeout(self, timeout: float) -> None:
        """There is no session now: switch the carrier off in `timeout` seconds, unless begin() is called before.
        Nothing happens if `timeout` is 0, or the time runs already. It began at `unconnected_since`, if that is set:
        for the process that had the TAP before."""
        now = monotonic()
        if self.unconnected_since is None:
            self.unconnected_since = now
        if timeout and self._carrier_timer is None:
            left = max(0.0, self.unconnected_since + timeout - now)
            self._carrier_timer = gevent.spawn_later(left, self.carrier, False)

    def carrier(self, on: bool) -> None:
        """Switch the carrier on or off, as bridges, bonds and routes see it. Before Linux 5.0 it is always on."""
        try:
            fcntl.ioctl(self._fd, TUNSETCARRIER, struct.pack("i", on))
            log.debug("%s: carrier %s", self.name, "on" if on else "off")
        except OSError as exc:
            log.debug("%s: carrier stays as it is: %s", self.name, exc.strerror)

    def read_batch(self, batch: Batch) -> None:
        """Replace `batch`'s packets by those that wait in the device: one at least, BATCH_BYTES and one packet more at
        most. Blocks this greenlet until there is one.

        Raises DeviceLost once the device is gone.
        """
        # After few packets there are probably no more yet: to ask again would cost a system call and an exception. And
        # a sender that never stops must let other connections have their turn.
        if len(batch.spans) < FEW_PACKETS or monotonic() - self._waited > TURN_SECONDS:
            self._wait()
        while not self.poll_batch(batch):
            self._wait()

    def poll_batch(self, batch: Batch) -> bool:
        """As read_batch(), but without waiting; return whether there were any packets."""
        fd, view, gap, readv = self._fd, batch.view, batch.GAP, os.readv
        spans: list[tuple[int, int]] = []
        end = 0
        try:
            while end < BATCH_BYTES:
                start = end + gap
                end = start + readv(fd, (view[start:],))
                spans.append((start, end))
        except BlockingIOError:
            pass
        except OSError as exc:
            raise self._lost(exc) from exc
        batch.spans = spans
        return bool(spans)

    def write_batch(self, packets: Sequence[Buffer]) -> None:
        """Give each packet to the kernel. A packet that it refuses is dropped and counted.

        Raises DeviceLost once the device is gone.
        """
        fd, write = self._fd, os.write
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
        if call is None:
            self._readable.stop()
        else:
            self._readable.start(call)

    def close(self, *, delete: bool = False) -> None:
        """Close the device; the kernel then removes it, unless it is persistent. Its next owner finds it as it was.

        With `delete`, somebody else may have its descriptor for a moment longer: it is removed all the same.
        """
        if (fd := self._fd) == NO_DESCRIPTOR:
            return
        self.release()
        if self._borrowed:
            # Another process has it open: the kernel removes nothing now.
            os.close(fd)
            return
        if self.persistent:
            tap_driver.put_back(fd, self.header)
        elif delete:
            with contextlib.suppress(OSError):
                if index := tap_driver.place(fd)[1]:
                    interfaces.delete(index)
        # The kernel needs tens of milliseconds to remove an interface. In a thread, other connections go on meanwhile.
        gevent.get_hub().threadpool.apply(os.close, (fd,))

    def release(self) -> None:
        """Use it no longer here; another process has it from now on, or close() follows. The descriptor stays open."""
        self._readable.close()
        self._stop_timer()
        if self._borrowed:
            tap_device.forget_events(self._fd)
        # What is still asked of it must not reach the next file of its number.
        self._fd = NO_DESCRIPTOR

    def stop_carrier_timeout(self) -> None:
        """There is a session again, here or in another process: the carrier is not switched off."""
        self._stop_timer()
        self.unconnected_since = None

    def _stop_timer(self) -> None:
        if self._carrier_timer is not None:
            self._carrier_timer.kill(block=False)
            self._carrier_timer = None

    def _wait(self) -> None:
        gevent.get_hub().wait(self._readable)
        self._waited = monotonic()

    def _lost(self, exc: OSError) -> DeviceLost:
        return DeviceLost(f"{self.name} is gone: {exc.strerror}; was it deleted?")
