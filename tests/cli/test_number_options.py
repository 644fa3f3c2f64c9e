"""The types of options whose values are numbers."""

from __future__ import annotations

import click
import pytest

from etherws.cli.number_options import Duration, Within


def test_a_duration_is_in_seconds() -> None:
    assert Duration().convert("5m", None, None) == 300.0
    with pytest.raises(click.BadParameter, match="'soon' is not a duration"):
        Duration().convert("soon", None, None)


def test_a_number_is_within_its_bounds() -> None:
    port = Within(click.IntRange(0, 65535))
    assert port.convert("443", None, None) == 443
    with pytest.raises(click.BadParameter, match="65536 is not in the range"):
        port.convert("65536", None, None)


@pytest.mark.parametrize("value", ["70000", "-1", "http", "", "80.5"])
def test_what_is_no_such_number_is_told_the_bounds_in_words(value: str) -> None:
    with pytest.raises(click.BadParameter) as found:
        Within(click.IntRange(0, 65535)).convert(value, None, None)
    assert found.value.message == f"{value} is not in the range 0 to 65535"
