"""The borders of the pure modules: the last value that is taken, the first that is not, and what must stay as it is."""

from __future__ import annotations

import math
import os

import pytest

from etherws.errors import SettingsError
from etherws.settings import Retry, ServerSettings


@pytest.mark.parametrize(
    "values",
    [{"device": "é" * 8}, {"device": "a\tb"}, {"device": "a\nb"}, {"device": "."}, {"bridge": ""}, {"path": "/#a"}],
    ids=["16 bytes in 8 letters", "tab", "newline", "dot", "empty bridge", "fragment"],
)
def test_more_bad_values_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(values))}"):
        ServerSettings(**values)


def test_the_first_wait_may_be_the_longest() -> None:
    assert Retry(first=30.0, most=30.0).first == 30.0


@pytest.mark.parametrize("option", ["device", "bridge"])
@pytest.mark.parametrize(
    "name",
    [os.fsdecode(b"eth\xff"), "a\0b", "\u00e0", "a\u00a0"],
    ids=["not UTF-8", "NUL", "a letter with byte a0", "no-break space is refused already"],
)
def test_a_name_that_the_kernel_cannot_take_is_a_settings_error(option: str, name: str) -> None:
    with pytest.raises(SettingsError, match=f"--{option}"):
        ServerSettings(**{option: name})


def test_an_mtu_of_thousands_of_digits_is_a_settings_error() -> None:
    with pytest.raises(SettingsError):
        ServerSettings.from_environ({"ETHERWS_SERVER_MTU": "9" * 5000})


def test_a_timeout_that_is_no_number_is_refused() -> None:
    with pytest.raises(SettingsError, match="--connect-timeout"):
        Retry(timeout=math.nan)
