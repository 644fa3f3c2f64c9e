"""The files that ``etherws init`` writes."""

from __future__ import annotations

import pytest

from etherws.access import toml_lines
from etherws.config import texts
from etherws.errors import SettingsError


@pytest.mark.parametrize("write", [texts.server, texts.client])
def test_each_value_is_written_once(write: object) -> None:
    values: dict[str, str | int | None] = {"port": 443, "certfile": "a", "keyfile": "b", "token-file": 'x"\\\x7f\n'}
    values |= {"uri": "wss://h/", "pinnedpubkey": "sha256//x", "bridge": "br0", "device": "lan%d"}
    assert callable(write)
    text = write("lan", "/etc/lan.toml", values)
    found = toml_lines.loads(text)
    switch = found.pop("insecure", None)
    assert found.items() <= values.items()
    assert (switch is True) == (write is texts.client)
    assert len(found) == (6 if write is texts.server else 5)
    assert max(map(len, text.splitlines())) <= 120


def test_half_of_a_servers_file_lets_nobody_else_in() -> None:
    """If a line is lost, so are those behind it."""
    values: dict[str, str | int | None] = {"port": 443, "certfile": "a", "keyfile": "b", "token-file": "c"}
    lines = texts.server("lan", "/etc/lan.toml", values).splitlines()
    for count in range(len(lines)):
        found = toml_lines.loads("\n".join(lines[:count])).keys()
        assert not found or "token-file" in found
        assert "port" not in found or found >= {"certfile", "keyfile"}


def test_what_is_not_given_is_shown_as_an_example() -> None:
    text = texts.client("lan", "lan.toml", {"uri": "wss://h/", "token-file": "t", "pinnedpubkey": None})
    assert toml_lines.loads(text) == {"uri": "wss://h/", "token-file": "t"}
    assert '#bridge = "br0"\n#device = "ethws%d"\n' in text
    assert "verified by the authorities" in text
    # Each example can be used as it stands.
    lines = [line.removeprefix("#") if line.startswith("#") and line[1] != " " else line for line in text.splitlines()]
    assert toml_lines.loads("\n".join(lines)).keys() >= {"bridge", "device", "drop", "cacert"}


@pytest.mark.parametrize("write", [texts.server, texts.client])
def test_a_folders_name_is_no_part_of_the_configuration(write: object) -> None:
    assert callable(write)
    text = write("lan", '/etc/a\nup = "/b"\udcff/lan.toml', {"port": 1})
    assert text.encode()
    assert '# After a change: etherws check /etc/a?up = "/b"?/lan.toml\n' in text
    assert toml_lines.loads(text).keys() <= {"port"}


def test_a_name_that_no_configuration_can_have_is_said() -> None:
    with pytest.raises(SettingsError, match=r"^--certfile /\?\.pem is not UTF-8, as a configuration is"):
        texts.server("lan", "lan.toml", {"certfile": "/\udcff.pem"})
