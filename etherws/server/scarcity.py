"""What a server may run out of, descriptors and memory: what is said of that at the start, and to whom.

A client for whom there is not enough is refused with 503, and all others stay. The log says it once, not at each of the
attempts that follow. What accept() does without descriptors is in accepting.py. Read next: tunnels.py.
"""

from __future__ import annotations

import errno
import logging
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from etherws.errors import DESCRIPTORS_HINT, EtherwsError, NoPort, Refused
from etherws.log_limit import LogLimit
from etherws.tunnel.wire import anonymous_memory

log = logging.getLogger(__name__)

#: Ports of a Linux bridge (net/bridge/br_private.h), and so clients of one server in most cases.
CLIENTS_MAX = 1023

#: Descriptors of a client: its connection, its TAP, and its port's state, where that outlives the process. Each further
#: connection of a link has four.
DESCRIPTORS = 3

#: All other descriptors of the process, about.
OTHERS = 128

#: Bytes that must be free before a client gets a port: what some busy clients take meanwhile.
MEMORY = 8 << 20

#: Bytes that must be free before connections are accepted: more, so that those that were accepted can be answered; and
#: for each that waits (waiting_list.py).
MEMORY_TO_ACCEPT, MEMORY_OF_EACH = 2 * MEMORY, 320 << 10

#: Seconds without a refusal for the same reason after which the next one is a warning again. Clients retry for ever,
#: and at the limit one is let in now and then.
QUIET = 60.0

#: What to try.
MEMORY_HINT = "give the machine or the container more memory, or allow more by LimitAS or MemoryMax in the systemd unit"


def descriptors_warning() -> str | None:
    """What to say if this process may not have a descriptor for each client that a bridge has a port for; else None."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    # RLIM_INFINITY is -1.
    if limit < 0 or limit >= CLIENTS_MAX * DESCRIPTORS + OTHERS:
        return None
    clients = max(0, limit - OTHERS) // DESCRIPTORS
    return (
        f"{limit} open files are allowed: enough for about {clients} clients, fewer with several connections;"
        f" {DESCRIPTORS_HINT}"
    )


def has_memory(size: int) -> bool:
    """Whether this process could have so many bytes now. To be told so, and not to be killed, it needs a limit
    (setrlimit(2), RLIMIT_AS), or a kernel that promises no more than it has (vm.overcommit_memory)."""
    try:
        anonymous_memory(size).close()
    except (OSError, MemoryError):
        return False
    return True


class Scarcity:
    """The refusals of one server for want of something."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._log = LogLimit(log)
        # When a client was last refused, by what for.
        self._last: dict[tuple[type[BaseException], int | None], float] = {}

    def require_memory(self) -> None:
        """Raise NoPort if there is no memory for one more client."""
        if not has_memory(MEMORY):
            raise NoPort(f"there is no memory for one more client; {MEMORY_HINT}")

    def refusal(self, error: EtherwsError | MemoryError) -> Refused:
        """The answer to a client that gets no port because of this error. The first one is a warning in the log."""
        now, cause = self._clock(), (type(error), getattr(error.__cause__, "errno", None))
        last = self._last.get(cause)
        self._last[cause] = now
        said = f"no memory is left; {MEMORY_HINT}" if isinstance(error, MemoryError) else str(error)
        return Refused(
            "503 Service Unavailable",
            "no port is free for one more client",
            [("Retry-After", "10")],
            kind="no port",
            warning="" if last is not None and now - last < QUIET else f"was refused: {said}",
        )

    def enough(self) -> None:
        """A client has its port: what is missing next is said again, but for what was short a moment ago."""
        if self._last:
            self._last = {cause: at for cause, at in self._last.items() if _is_short(cause)}

    @contextmanager
    def survived(self, client: str) -> Iterator[None]:
        """If memory runs out in the block, that ends the block, with a line in the log: the other clients go on."""
        try:
            yield
        except (MemoryError, OSError) as exc:
            if isinstance(exc, OSError) and exc.errno != errno.ENOMEM:
                raise
            self._log.log(logging.WARNING, "memory", "%s: its tunnel ends: no memory is left; %s", client, MEMORY_HINT)


def _is_short(cause: tuple[type[BaseException], int | None]) -> bool:
    """Whether this is a lack that comes and goes with each client."""
    return cause[0] is MemoryError or cause[1] in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
