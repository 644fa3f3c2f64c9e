"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from etherws.cli.operate import units


@pytest.mark.parametrize(
    ("count", "size", "rate"),
    [
        (0, "0 B", "0"),
        (999, "999 B", "999 bit/s"),
        (999.6, "1 kB", "1 kbit/s"),
        (1234, "1.23 kB", "1.23 kbit/s"),
        (34_567, "34.6 kB", "34.6 kbit/s"),
        (999_600, "1 MB", "1 Mbit/s"),
        (5e9, "5 GB", "5 Gbit/s"),
        (5.6e13, "56 TB", "56 Tbit/s"),
    ],
)
def test_bytes_and_rates(count: float, size: str, rate: str) -> None:
    assert (units.size(count), units.bit_rate(count)) == (size, rate)


@pytest.mark.parametrize(
    ("seconds", "delay", "duration", "short"),
    [
        (None, "-", "-", "-"),
        (-1.0, "0 ms", "0 s", "0s"),
        (0.0, "0 ms", "0 s", "0s"),
        (0.00042, "0.42 ms", "0 s", "0s"),
        (0.01234, "12.3 ms", "0 s", "0s"),
        (0.9996, "1 s", "1 s", "1s"),
        (1.26, "1.3 s", "1.3 s", "1.3s"),
        (9.96, "10 s", "10 s", "10s"),
        (59.6, "1 min", "1 min", "1m"),
        (200, "3 min 20 s", "3 min 20 s", "3m20s"),
        (3600, "1 h", "1 h", "1h"),
        (7500, "2 h 5 min", "2 h 5 min", "2h5m"),
        (86400, "1 d", "1 d", "1d"),
        (273600, "3 d 4 h", "3 d 4 h", "3d4h"),
    ],
)
def test_times(seconds: float | None, delay: str, duration: str, short: str) -> None:
    assert (units.delay(seconds), units.duration(seconds), units.short(seconds)) == (delay, duration, short)


def test_other_numbers() -> None:
    assert units.number(1234567) == "1,234,567"
    assert units.moment(None) == units.moment(1e30) == units.moment(math.nan) == "-"
    assert units.moment(86400 * 365).startswith("197")
