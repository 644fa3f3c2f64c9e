"""The store: open files that outlive their process, by name. What a port is made of is kept here from its first moment.

A process that starts finds in Store.found what the last one left: from systemd's file-descriptor store after a restart
or a crash, or from the process that this one was before it executed a new image. Names are of the form "port-7".
Nothing here knows what a descriptor is. Read next: service_manager.py, systemd's side; state_file.py.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, MutableMapping
from types import MappingProxyType

from etherws.kernel import service_manager
from etherws.log_limit import LogLimit

log = logging.getLogger(__name__)

#: How descriptors are handed to a new image of the same process: "12:port-7,13:port-7,9:listen".
HANDOVER = "ETHERWS_HANDOVER"


class Store:
    """What is kept, and what was found. One for each process."""

    def __init__(
        self, found: dict[str, list[int]] | None = None, *, lasting: bool = False, size: int | None = None
    ) -> None:
        """`found`: what the last process left. `lasting`: whether systemd keeps what this process keeps; `size` is how
        many descriptors, None if that is not known."""
        self._found = dict(found or {})
        self.lasting, self._size = lasting, size
        #: Whether this process is about to execute another image, which finds what is kept here.
        self.handing_over = False
        #: Whether the service ends for good, and nothing of it is to stay.
        self.ending = False
        self._kept: dict[str, tuple[int, ...]] = {}
        #: What systemd keeps of what was found and taken: how many descriptors under which name.
        self._lasts = {name: len(fds) for name, fds in self._found.items()} if lasting else {}
        self._limit = LogLimit(log)
        self._told_full = False

    @property
    def outlives(self) -> bool:
        """Whether what is kept is there after the end of this image of the process: then it must be left as it is, and
        peers are told of a restart."""
        return (self.lasting or self.handing_over) and not self.ending

    def names(self) -> list[str]:
        """The names of what was found and not taken yet."""
        return list(self._found)

    def look(self, name: str) -> list[int]:
        """What was found under this name; it stays here."""
        return list(self._found.get(name, ()))

    def take(self, name: str) -> list[int]:
        """What was found under this name; the caller owns the descriptors now. It still is to keep() or drop() it."""
        return self._found.pop(name, [])

    def keep(self, name: str, *fds: int) -> None:
        """Have these outlive this process. The same name again replaces what was kept. What was found under a name
        keeps that."""
        if self._kept.get(name) == fds:
            return
        if self.lasting:
            if name in self._kept:
                service_manager.drop(name)
            if name not in self._lasts and not service_manager.keep(name, *fds):
                self._limit.log(
                    logging.WARNING,
                    "deaf",
                    "%s does not outlive a restart or a crash: systemd did not take it in time. Its interface is made"
                    " again then; restart the unit when nobody needs it",
                    name,
                )
            self._lasts.pop(name, None)
        self._kept[name] = fds
        self._look_for_room()

    def drop(self, name: str) -> None:
        """Do not keep this any longer; call it before the descriptors are closed. No error if it was not kept."""
        self._kept.pop(name, None)
        self._lasts.pop(name, None)
        if self.lasting:
            service_manager.drop(name)

    def _look_for_room(self) -> None:
        """Say, once, if systemd's store is full: systemd itself says nothing."""
        if self._size is None or self._told_full:
            return
        needed = sum(map(len, self._kept.values())) + sum(self._lasts.values())
        if needed > self._size:
            self._told_full = True
            log.warning(
                "systemd keeps only %d descriptors of this unit, and %d are needed: interfaces of clients that come now"
                " do not outlive a restart or a crash. Raise FileDescriptorStoreMax and FDSTORE in the unit, two for"
                " each client",
                self._size,
                needed,
            )

    def drop_rest(self) -> list[str]:
        """The start is over: close what was found and nobody took; return the names."""
        rest = self.names()
        for name in rest:
            for fd in self.take(name):
                os.close(fd)
            self.drop(name)
        return rest

    def tell(
        self, environ: MutableMapping[str, str], more: Mapping[str, Iterable[int]] = MappingProxyType({})
    ) -> list[int]:
        """Have a program that is started with `environ` find all that is kept here, and `more` descriptors by their
        names. Return them all: it needs to inherit them."""
        pairs = [(fd, name) for kept in (self._kept, more) for name, fds in kept.items() for fd in fds]
        environ[HANDOVER] = ",".join(f"{fd}:{name}" for fd, name in pairs)
        return [fd for fd, _ in pairs]

    def hand_over(
        self, environ: MutableMapping[str, str], more: Mapping[str, Iterable[int]] = MappingProxyType({})
    ) -> None:
        """The process is about to execute another image, with `environ`: as tell()."""
        for fd in self.tell(environ, more):
            os.set_inheritable(fd, True)

    def take_back(self) -> None:
        """The other image could not be executed: this process finds what it has kept, as the other one would have."""
        for fds in self._kept.values():
            for fd in fds:
                os.set_inheritable(fd, False)
        self._found.update((name, list(fds)) for name, fds in self._kept.items())
        self._kept.clear()
        self.handing_over = False


def from_environ(environ: MutableMapping[str, str]) -> Store:
    """The store of this process, with what the last one left. Takes out of `environ` what told of it. Entries that
    cannot be read are left out."""
    found = service_manager.inherited(environ)
    for entry in filter(None, environ.pop(HANDOVER, "").split(",")):
        number, _, name = entry.partition(":")
        try:
            if any(int(number) in fds for fds in found.values()):
                raise ValueError
            os.set_inheritable(fd := int(number), False)
        except (ValueError, OverflowError, OSError):
            log.warning("a descriptor was handed over that is not open, or twice: %s", entry)
            continue
        found.setdefault(name, []).append(fd)
    size = service_manager.store_size(environ)
    return Store(found, lasting=size > 0, size=size or None)
