"""Numbers as people read them on a terminal: bytes, bit/s, times. Pure.

Units are decimal, as networks have them: 1 kB is 1000 bytes. Three digits say enough; --json has the whole number.
Read next: status_table.py, which uses them.
"""

from __future__ import annotations

import time

#: What a number is divided by, and how the unit then begins (SI).
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def size(count: float) -> str:
    """A number of bytes: 0 B, 950 B, 1.23 kB, 34.5 MB."""
    return _scaled(count, "B")


def bit_rate(rate: float) -> str:
    """A rate in bit/s: 0, 950 bit/s, 1.23 Mbit/s."""
    return _scaled(rate, "bit/s") if rate >= 0.5 else "0"


def number(count: float) -> str:
    """A number of things, with commas: 1,234,567."""
    return f"{count:,.0f}"


def delay(seconds: float | None) -> str:
    """A short time, as packets take it: 0 ms, 0.4 ms, 12.3 ms, 1.2 s; "-" for None."""
    if seconds is None:
        return "-"
    if seconds < 0.00005:
        return "0 ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    return duration(seconds)


def duration(seconds: float | None) -> str:
    """A time as people say it: 0.4 s, 40 s, 3 min 20 s, 2 h 5 min, 3 d 4 h; "-" for None."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f} s".replace(".0 s", " s")
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    days, hours = divmod(hours, 24)
    if not days:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{days} d {hours} h" if hours else f"{days} d"


def short(seconds: float | None) -> str:
    """The same for a column: 0.4s, 40s, 3m20s, 2h5m, 3d4h."""
    return duration(seconds).replace(" min", "m").replace(" ", "")


def moment(epoch: float | None) -> str:
    """A time of day, in this machine's time zone: 2026-11-26 07:29:47; "-" for None, and for what no clock shows."""
    try:
        return "-" if epoch is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))
    except (OverflowError, ValueError, OSError):
        return "-"


def _scaled(value: float, unit: str) -> str:
    for divisor, prefix in _PREFIXES:
        # What would be written as 1000 has the next unit.
        if value >= 0.9995 * divisor:
            return f"{value / divisor:.3g} {prefix}{unit}"
    return f"{value:.0f} {unit}"
