"""A process that has no descriptors left."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

#: More than a test has open.
LIMIT = 512


@contextlib.contextmanager
def none_left(*, but: int = 0) -> Iterator[None]:
    """This process can open no file in the block, or only so many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    reader, writer = os.pipe()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(LIMIT, before[1]), before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(reader))
        for _ in range(but):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for fd in (*taken, reader, writer):
            os.close(fd)
