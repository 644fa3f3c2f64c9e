"""Cookies that outlive a restart: their digests, in a file of the store, which has no name in any folder.

So a page that is open goes on by itself after a hand-over, and after a restart by systemd. Read next: logins.py, which
has them; kernel/store.py.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence

from etherws.kernel.state_file import StateFile
from etherws.kernel.store import Store

#: The name in the store.
NAME = "monitor"


class KeptLogins:
    """The file. Without a store that lasts, it ends with the process."""

    def __init__(self, store: Store) -> None:
        """Take what the last process has left, if there is something: before others look what nobody has taken."""
        self._store = store
        self.cookies: list[bytes] = []
        self._file: StateFile | None = None
        for descriptor in store.take(NAME):
            try:
                self._file = StateFile(descriptor)
            except (OSError, ValueError):
                os.close(descriptor)
                continue
            # Damaged: who was logged in logs in again.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self.cookies = [bytes.fromhex(each) for each in (self._file.read() or {})["cookies"]]

    def save(self, cookies: Sequence[bytes]) -> None:
        """Keep these digests. Raises OSError if the file cannot be made."""
        if self._file is None:
            self._file = StateFile()
        self._store.keep(NAME, self._file.fd)
        self._file.write({"cookies": [each.hex() for each in cookies]})

    def close(self) -> None:
        """The process ends. If nothing of it is to stay, the file is gone."""
        if self._file is not None and not self._store.outlives:
            self._store.drop(NAME)
            self._file.close()
        self._file = None
