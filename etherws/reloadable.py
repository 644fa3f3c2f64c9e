"""A value that is made from files, and made again when they change: certificates, passwords, the policy.

A new connection asks for the value, and server/review.py once a second while there are clients. If the changed
files cannot be used, that is logged once, and the old value stays. Nothing watches the files: each get() looks at them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from etherws.errors import EtherwsError
from etherws.file_names import to_read

log = logging.getLogger(__name__)

T = TypeVar("T")


class Reloadable(Generic[T]):
    """A value, and the files that it is made from."""

    def __init__(self, make: Callable[[], T], paths: Iterable[str | None]) -> None:
        """Make the value for the first time. Raises what `make` raises. Of `paths`, None is ignored."""
        self._make = make
        self._paths = [path for path in paths if path]
        self._seen = self._look()
        self._value = make()

    def get(self) -> T:
        """The value, by the files as they are now."""
        # One stat() for each file takes microseconds. So no file needs to be watched.
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            self._remake()
        return self._value

    def reload(self) -> None:
        """Make the value again, also if the files look unchanged. Without files there is nothing to read."""
        if not self._paths:
            return
        self._seen = self._look()
        self._remake()

    def _remake(self) -> None:
        # The files were looked at before this reads them: a change in between is found by the next get().
        try:
            self._value = self._make()
        except EtherwsError as exc:
            log.error("%s; what was read before stays in use", exc)
        else:
            log.info("read again: %s", ", ".join(self._paths))

    def _look(self) -> list[object]:
        return [_state(path) for path in self._paths]


def _state(path: str) -> object:
    """A value that differs after the file was written, replaced or removed."""
    try:
        found = os.stat(to_read(path))
    except OSError as exc:
        return exc.errno
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
