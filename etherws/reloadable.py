"""Values that are made of files, and made again when these change: certificates, passwords, policy.

Whoever needs such a value asks for it when a connection begins; sessions that run keep what they have. A replacement
that cannot be used is logged once, and the old value stays.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from etherws.errors import EtherwsError

log = logging.getLogger(__name__)

T = TypeVar("T")


class Reloadable(Generic[T]):
    """A value and the files that it is made of."""

    def __init__(self, make: Callable[[], T], paths: Iterable[str | None]) -> None:
        """Make it for the first time, which raises what `make` raises. Of `paths`, None is left out."""
        self._make = make
        self._paths = [path for path in paths if path]
        self._seen = self._look()
        self._value = make()

    def get(self) -> T:
        """The value as the files have it now."""
        # Four numbers a file: to look at each connection costs microseconds, and needs nobody to watch.
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._remake()
        return self._value

    def reload(self) -> None:
        """Make it anew whether the files look changed or not."""
        self._seen = self._look()
        self._remake()

    def _remake(self) -> None:
        # Before the files are read: what changes meanwhile is seen the next time.
        names = ", ".join(self._paths)
        try:
            self._value = self._make()
        except EtherwsError as exc:
            log.error("%s; what was read before stays in use", exc)
        else:
            log.info("read again: %s", names)

    def _look(self) -> list[object]:
        return [_mark(path) for path in self._paths]


def _mark(path: str) -> object:
    """What differs once the file was written or replaced."""
    try:
        found = os.stat(path)
    except OSError as exc:
        return exc.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
