"""Whether the machine's clock is right: certificates and one-time tokens depend on it. Read next: check/machine.py.

Source: adjtimex(2), include/uapi/linux/timex.h.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import etherws
from etherws.check.findings import Finding, Verdict

#: What adjtimex(2) returns for a clock that nothing keeps right.
TIME_ERROR = 5

#: Bytes of struct timex, rounded up: 208 on 64-bit machines.
_TIMEX_BYTES = 512

#: Seconds of a day. Files from a machine in another time zone may be that much ahead.
DAY = 86_400.0

_HINT = "timedatectl set-ntp true, or start chrony; to set it by hand: date -s"


def clock(
    now: Callable[[], float] = time.time, state: Callable[[], int | None] | None = None, built: float | None = None
) -> Iterator[Finding]:
    """Look at the clock. `built` is when this etherws was installed, in seconds since 1970."""
    time_now = now()
    written = datetime.fromtimestamp(max(time_now, 0.0), timezone.utc).isoformat(" ", "seconds")
    installed = os.stat(etherws.__file__).st_mtime if built is None else built
    found = (state or _state)()
    synchronised = None if found is None else found != TIME_ERROR
    data = {"time": time_now, "synchronised": synchronised}
    if time_now < installed - DAY:
        yield Finding(
            "clock",
            f"it is wrong: it says {written}, which is before this etherws was installed; no certificate is valid then",
            Verdict.FAILED,
            _HINT,
            data,
        )
    elif synchronised:
        yield Finding("clock", f"is kept right by a time server: {written}", data=data)
    elif synchronised is None:
        yield Finding("clock", f"says {written}; whether it is kept right cannot be asked", Verdict.SKIPPED, data=data)
    else:
        yield Finding(
            "clock",
            f"says {written}, and no time server keeps it right: certificates fail once it is off",
            Verdict.WARNING,
            _HINT,
            data,
        )


def _state() -> int | None:
    """What the kernel says of the clock; None if this process may not ask."""
    # Modes, the first field, are 0: nothing is changed.
    found = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return None if found < 0 else int(found)
