"""A value that is made from files, and made again when they change: certificates, passwords, the policy.

A new connection asks for the value, and server/review.py once a second while there are clients. If the changed
files cannot be used, that is logged once, and the old value stays. Files that could not be read, for want of a
descriptor or of a right, are tried again. Nothing watches the files: each get() looks at them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Generic, TypeVar

from etherws.errors import EtherwsError
from etherws.file_names import to_read

log = logging.getLogger(__name__)

T = TypeVar("T")

#: Seconds after which files that could not be read are tried again.
AGAIN = 1.0


class Reloadable(Generic[T]):
    """A value, and the files that it is made from."""

    def __init__(
        self, make: Callable[[], T], paths: Iterable[str | None], clock: Callable[[], float] = monotonic
    ) -> None:
        """Make the value for the first time. Raises what `make` raises. Of `paths`, None is ignored. `clock` gives
        seconds."""
        self._make, self._clock = make, clock
        #: When to try again; None if the files could be read.
        self._again: float | None = None
        #: What was logged of them: not at each attempt.
        self._said = ""
        self._paths = [path for path in paths if path]
        self._seen = self._look()
        self._value = make()

    def get(self) -> T:
        """The value, by the files as they are now."""
        # One stat() for each file takes microseconds. So no file needs to be watched.
        seen = self._look()
        if seen != self._seen:
            self._seen, self._said = seen, ""
        elif self._again is None or self._clock() < self._again:
            return self._value
        self._remake()
        return self._value

    def reload(self) -> None:
        """Make the value again, also if the files look unchanged. Without files there is nothing to read."""
        if not self._paths:
            return
        self._seen, self._said = self._look(), ""
        self._remake()

    def _remake(self) -> None:
        # The files were looked at before this reads them: a change in between is found by the next get().
        try:
            self._value = self._make()
        except (EtherwsError, OSError) as exc:
            self._again = self._clock() + AGAIN if _is_unread(exc) else None
            before, self._said = self._said, str(exc)
            if self._said != before:
                log.error("%s; what was read before stays in use", exc)
        else:
            self._again, self._said = None, ""
            log.info("read again: %s", ", ".join(self._paths))

    def _look(self) -> list[object]:
        return [_state(path) for path in self._paths]


def _is_unread(error: BaseException | None) -> bool:
    """Whether the kernel did not let a file be read. What is wrong in a file is not found out again and again."""
    while error is not None:
        # OpenSSL's errors are OSErrors, too.
        if isinstance(error, OSError) and type(error).__module__ != "ssl":
            return True
        error = error.__cause__
    return False


def _state(path: str) -> object:
    """A value that differs after the file was written, replaced or removed, or has other owners or rights."""
    try:
        found = os.stat(to_read(path))
    except OSError as exc:
        return exc.errno
    # Not the time of the last change (ctime): a backup's hard link changes that.
    return (
        *(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns),
        *(found.st_mode, found.st_uid, found.st_gid),
    )
