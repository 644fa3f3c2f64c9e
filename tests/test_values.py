"""Values as users write them."""

from __future__ import annotations

import pytest

from etherws.errors import SettingsError
from etherws.values import duration, ethernet, integer, seconds, switch, words


@pytest.mark.parametrize(
    "text",
    [
        *("02:00:00:00:ab:01", "02-00-00-00-AB-01", "2:0:0:0:ab:1", "0200.0000.ab01", "02000000AB01"),
        " 02:00:00:00:ab:01\n",
    ],
)
def test_an_ethernet_address_is_read_in_its_usual_notations(text: str) -> None:
    assert ethernet(text) == "02:00:00:00:ab:01"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not a MAC address; write 02:00:00:00:00:01"),
        ("02:00:00:00:00", "is not a MAC"),
        ("02:00:00:00:00:01:02", "is not a MAC"),
        ("02:00:00:00:00:g1", "is not a MAC"),
        ("02:00:00:00:00:001", "is not a MAC"),
        ("0200.0000.01", "is not a MAC"),
        ("02 00 00 00 00 01", "is not a MAC"),
        ("02:00:00:00:00:\u0661", "is not a MAC"),
        ("random", "is not a MAC"),
        ("ff:ff:ff:ff:ff:ff", "is the address of a group of machines"),
        ("01:00:5e:00:00:01", "the first byte of one machine's is even"),
        ("0:0:0:0:0:0", "is the address of no machine; begin with 02"),
    ],
)
def test_what_is_not_one_machines_address_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ethernet(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("20", 20.0), ("20s", 20.0), ("500ms", 0.5), ("5m", 300.0), ("1.5h", 5400.0), ("0", 0.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1 s", "-1", "1d", ".5", "1.", "1e3", "\u0661", "1s\n"])
def test_what_is_not_a_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write 20s, 500ms, 5m or a number of seconds"):
        duration(text)


def test_values_of_the_environment_are_read_or_refused_by_name() -> None:
    assert (integer("N", "12"), seconds("N", "5m"), switch("N", " Yes"), switch("N", "off"), words("N", "a  b")) == (
        *(12, 300.0, True, False),
        ("a", "b"),
    )
    for read, text in ((integer, "1e3"), (seconds, "soon"), (switch, "maybe")):
        with pytest.raises(SettingsError, match=f"^N:? '{text}' is "):
            read("N", text)
